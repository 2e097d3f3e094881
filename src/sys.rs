//! The only unsafe code: each block with its argument.
#![expect(unsafe_code, reason = "registration with the poller, descriptor limit and allocator tuning have no safe API")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use polling::{Event, Poller};

/// Registers a socket with the poller.
///
/// The caller takes it out again with [`Poller::delete`] before the socket is closed: `http::poll` in the functions that
/// own the socket, `fleet::link` in the `Drop` of the socket's owner.
pub(crate) fn poller_add<S: AsRawFd>(poller: &Poller, source: &S, interest: Event) -> io::Result<()> {
    // SAFETY: the descriptor is open (we hold a reference to its owner), and both callers delete it from the poller
    // before they drop the owner, as `Poller::add` demands.
    unsafe { poller.add(source, interest) }
}

/// Lets more connections wait to be accepted than std's `bind` asks for.
pub(crate) fn widen_backlog(listener: &std::net::TcpListener, backlog: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open (we hold a reference to its owner); listening again only changes the backlog.
    match unsafe { libc::listen(listener.as_raw_fd(), backlog) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets a listening socket outlive the program: whatever this process becomes has it under the descriptor that is
/// returned. Hang-ups are ignored until somebody listens for them again: the program that comes begins without handlers.
pub(crate) fn keep_over_exec(listener: &std::net::TcpListener) -> io::Result<RawFd> {
    let descriptor = listener.as_raw_fd();
    // SAFETY: the descriptor is open (we hold a reference to its owner); the call changes one flag of it.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: ignoring a signal replaces no data; whoever wanted it is about to end.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    Ok(descriptor)
}

/// The listening socket that the program before this one left under that descriptor; an error when it is no such thing.
pub(crate) fn inherited_listener(descriptor: RawFd) -> io::Result<std::net::TcpListener> {
    let mut listens: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    let value = (&raw mut listens).cast::<libc::c_void>();
    // SAFETY: value and length describe a live integer, which the call fills; on a descriptor that is not open or no
    // socket it fails without a trace.
    let asked = unsafe { libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, value, &raw mut length) };
    if asked != 0 || listens != 1 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the descriptor is open, as the call above has shown, and a listening socket; called once, before anything
    // else has opened one, so that nobody else owns it.
    let listener = unsafe { std::net::TcpListener::from_raw_fd(descriptor) };
    // SAFETY: as above; the flag keeps children from having it.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(listener)
}

/// Raises the soft limit of open descriptors to the hard one; what is in force afterwards.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to a live, properly typed struct, and keep nothing.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return 0;
        }
        if limit.rlim_cur < limit.rlim_max {
            let wanted = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) == 0 {
                return wanted.rlim_cur;
            }
        }
    }
    limit.rlim_cur
}

/// Caps glibc's malloc arenas: one per thread times thousands of short threads keeps memory that nobody uses.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers; called once, before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Gives freed memory back to the system; called by the keeper after busy times.
pub fn trim_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim is thread-safe and takes an integer.
    unsafe {
        libc::malloc_trim(64 * 1024);
    }
}

/// Lets go of the code pages that only the start needed (parsing options and configuration, migrations): what is used
/// again comes back from the page cache when it is used. On a small board these pages are better free.
pub fn release_code_pages() {
    #[cfg(target_os = "linux")]
    for line in std::fs::read_to_string("/proc/self/maps").unwrap_or_default().lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(access), Some(offset)) = (fields.next(), fields.next(), fields.next()) else { continue };
        // Code, and what stands before it in the file: constants and unwind tables, which no relocation changes.
        let constant = access == "r--p" && offset.bytes().all(|digit| digit == b'0');
        if !(access == "r-xp" || constant) || !fields.nth(2).is_some_and(|path| path.starts_with('/')) {
            continue;
        }
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) else { continue };
        // SAFETY: the range is a mapping of a file that is not writable, and not of the part that was while the program
        // was loaded (that never begins at offset 0), so no page of it can differ from the file: dropping it from our
        // page tables loses nothing, and the next use maps it again. A mapping that is gone by now makes the call
        // fail, which is harmless.
        unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(start), end - start, libc::MADV_DONTNEED);
        }
    }
}

/// Whether something keeps the system's clock right; None where the system does not tell.
pub fn clock_is_synchronised() -> Option<bool> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the struct is plain numbers, for all of which zero is valid; zero `modes` only reads, into the struct.
        let state = unsafe {
            let mut clock: libc::timex = std::mem::zeroed();
            libc::adjtimex(&raw mut clock)
        };
        (state >= 0).then_some(state != libc::TIME_ERROR)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// A text that changes when the machine was restarted; None where the system has none.
pub fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}

/// The machine's name, without a domain.
pub fn host_name() -> Option<String> {
    let mut buffer = [0_u8; 256];
    // SAFETY: the buffer is valid for its length, and gethostname writes at most that many bytes.
    let result = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    if result != 0 {
        return None;
    }
    let end = buffer.iter().position(|&byte| byte == 0)?;
    let name = std::str::from_utf8(&buffer[..end]).ok()?;
    name.split('.').next().filter(|first| !first.is_empty()).map(str::to_ascii_lowercase)
}
