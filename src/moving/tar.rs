//! Plain tar files (POSIX ustar): regular files with names of up to 255 bytes. What `tar` packs and unpacks, and nothing
//! else of it: no links, no devices, no owners.

use std::io::{self, ErrorKind, Read, Write};

const BLOCK: usize = 512;
const NAME: usize = 100;
const PREFIX: usize = 155;
/// The largest size that eleven octal digits hold; larger ones are binary, as GNU tar writes them.
const OCTAL_MAX: u64 = 0o777_7777_7777;

/// Writes an archive.
pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
}

/// Reads an archive, entry by entry.
pub(super) struct Reader<'a> {
    from: &'a mut dyn Read,
    /// Of the current entry, not read yet; behind it blanks up to a whole block.
    left: u64,
    padding: u64,
    is_program: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    /// Adds a file of exactly `bytes` bytes. Only its owner may read it, and start it where `is_program`.
    pub(super) fn add(
        &mut self,
        name: &str,
        bytes: u64,
        mtime: u64,
        is_program: bool,
        data: &mut dyn Read,
    ) -> io::Result<()> {
        let mut block = header(name, bytes, mtime)?;
        if is_program {
            put(&mut block, 100, b"0000700\0");
            seal(&mut block);
        }
        self.out.write_all(&block)?;
        let copied = io::copy(&mut data.take(bytes), self.out)?;
        if copied < bytes {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        io::copy(&mut io::repeat(0).take(padding(bytes)), self.out).map(|_| ())
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }
}

fn padding(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK as u64) - bytes
}

fn header(name: &str, bytes: u64, mtime: u64) -> io::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let (prefix, rest) = if name.len() <= NAME {
        ("", name)
    } else {
        // At a slash, so that both parts fit.
        let fits = |at: &usize| *at <= PREFIX && name.len() - at - 1 <= NAME;
        let slash = name.match_indices('/').map(|(at, _)| at).find(fits);
        slash.map(|at| (&name[..at], &name[at + 1..])).ok_or_else(|| bad("its name is too long for an archive"))?
    };
    put(&mut block, 0, rest.as_bytes());
    put(&mut block, 100, b"0000600\0");
    put(&mut block, 108, b"0000000\0");
    put(&mut block, 116, b"0000000\0");
    if bytes <= OCTAL_MAX {
        put(&mut block, 124, format!("{bytes:011o}\0").as_bytes());
    } else {
        put(&mut block, 124, &[0x80]);
        put(&mut block, 128, &bytes.to_be_bytes());
    }
    put(&mut block, 136, format!("{mtime:011o}\0").as_bytes());
    put(&mut block, 156, b"0");
    put(&mut block, 257, b"ustar\x0000");
    put(&mut block, 345, prefix.as_bytes());
    seal(&mut block);
    Ok(block)
}

fn seal(block: &mut [u8; BLOCK]) {
    let sum = checksum(block);
    put(block, 148, format!("{sum:06o}\0 ").as_bytes());
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The sum of all bytes, its own field taken as blanks.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    block.iter().enumerate().map(|(at, &byte)| u32::from(if (148..156).contains(&at) { b' ' } else { byte })).sum()
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

impl<'a> Reader<'a> {
    pub(super) fn new(from: &'a mut dyn Read) -> Self {
        Self { from, left: 0, padding: 0, is_program: false }
    }

    /// Goes on to the next entry: its name and length. None at the end of the archive; one that breaks off is an error,
    /// and so is an entry that is no regular file.
    pub(super) fn next(&mut self) -> io::Result<Option<(String, u64)>> {
        io::copy(&mut self.by_ref().take(u64::MAX), &mut io::sink())?;
        io::copy(&mut (&mut *self.from).take(self.padding), &mut io::sink())?;
        self.padding = 0;
        let mut block = [0; BLOCK];
        self.from.read_exact(&mut block)?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        if octal(&block[148..156]) != Some(u64::from(checksum(&block))) {
            return Err(bad("a header is damaged"));
        }
        if !matches!(block[156], b'0' | 0) {
            return Err(bad("it holds something that is no plain file"));
        }
        let bytes = match block[124] {
            0x80 => Some(u64::from_be_bytes(block[128..136].try_into().unwrap_or_default())),
            _ => octal(&block[124..136]),
        };
        let bytes = bytes.ok_or_else(|| bad("a header is damaged"))?;
        let text = |field: &[u8]| {
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
            String::from_utf8(field[..end].to_vec()).map_err(|_| bad("a name is not UTF-8"))
        };
        let (name, prefix) = (text(&block[..NAME])?, text(&block[345..345 + PREFIX])?);
        self.left = bytes;
        self.padding = padding(bytes);
        self.is_program = octal(&block[100..108]).is_some_and(|mode| mode & 0o100 != 0);
        Ok(Some((if prefix.is_empty() { name } else { format!("{prefix}/{name}") }, bytes)))
    }
}

impl Reader<'_> {
    /// Whether the owner of the current entry may start it.
    pub(super) fn is_program(&self) -> bool {
        self.is_program
    }
}

/// The contents of the current entry.
impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let max = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if max == 0 {
            return Ok(0);
        }
        let count = self.from.read(&mut buf[..max])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(if text.is_empty() { "0" } else { text }, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_again() {
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(90));
        let mut packed = Vec::new();
        let mut writer = Writer::new(&mut packed);
        for (name, data) in [("a", &b"one"[..]), ("empty", b""), (&long, &[7; 512])] {
            writer.add(name, data.len() as u64, 1, false, &mut &*data).unwrap();
        }
        assert!(writer.add(&"x".repeat(101), 0, 1, false, &mut io::empty()).is_err());
        assert!(writer.add("short", 4, 1, false, &mut &b"abc"[..]).is_err());
        packed.truncate(packed.len() - 515);
        Writer::new(&mut packed).finish().unwrap();

        let mut from = &packed[..];
        let mut reader = Reader::new(&mut from);
        assert_eq!(reader.next().unwrap(), Some(("a".to_owned(), 3)));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        assert_eq!(reader.next().unwrap(), Some(("empty".to_owned(), 0)));
        assert_eq!(reader.next().unwrap(), Some((long, 512)));
        assert_eq!(reader.next().unwrap(), None, "what was not read is skipped");
    }

    #[test]
    fn damage_and_strangers_are_errors() {
        let mut packed = Vec::new();
        let mut writer = Writer::new(&mut packed);
        writer.add("a", 3, 1, false, &mut &b"one"[..]).unwrap();
        writer.finish().unwrap();
        let mut changed = packed.clone();
        changed[0] = b'b';
        assert!(Reader::new(&mut &changed[..]).next().is_err());
        let mut short = &packed[..514];
        let mut reader = Reader::new(&mut short);
        assert!(reader.next().is_ok() && reader.next().is_err());
        let mut link = header("l", 0, 0).unwrap();
        link[156] = b'2';
        let sum = checksum(&link);
        put(&mut link, 148, format!("{sum:06o}\0 ").as_bytes());
        assert!(Reader::new(&mut &link[..]).next().is_err());
        assert_eq!(
            header("big", 1 << 40, 0).map(|block| Reader::new(&mut &block[..]).next().unwrap()).unwrap().unwrap().1,
            1 << 40
        );
    }
}
