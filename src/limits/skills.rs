//! What agents know of themselves: skills, persona, and the journal of their changes.

/// One skill file, front matter included: a long manual page. Longer ones are not read and not written.
pub const SKILL_BYTES_MAX: usize = 64 * 1024;
/// One file beside a `SKILL.md`.
pub const SKILL_FILE_BYTES_MAX: usize = 256 * 1024;
/// Files beside one `SKILL.md`, and directories between them and it.
pub const SKILL_FILES_MAX: usize = 64;
pub const SKILL_FILE_DEPTH_MAX: usize = 4;
/// Skills of one directory; those beyond it, by file name, are not read.
pub const SKILLS_MAX: usize = 200;
/// Skills that an agent may have before it can make no more by itself, and bytes of one that it writes.
pub const AGENT_SKILLS_MAX: usize = 50;
pub const AGENT_SKILL_BYTES_MAX: usize = 16 * 1024;
/// Skills in one prompt: beyond it they are left out, with a line in the log. A quarter of a small model's context.
pub const SKILL_PROMPT_BYTES_MAX: usize = 32 * 1024;
/// Entries of one directory that are looked at.
pub const DIRECTORY_ENTRIES_MAX: usize = 2000;

/// Characters of `MEMORY.md` and `USER.md`: both are in every prompt (the later reference's numbers).
pub const MEMORY_CHARS_MAX: usize = 2200;
pub const USER_CHARS_MAX: usize = 1375;
/// Characters of `SOUL.md` and `IDENTITY.md`.
pub const PERSONA_CHARS_MAX: usize = 16 * 1024;
/// What is read of a persona file that somebody wrote by hand.
pub const PERSONA_BYTES_MAX: usize = 64 * 1024;

/// Entries of the journal that are kept for each agent; the oldest go.
pub const JOURNAL_ENTRIES_MAX: i64 = 200;
/// Entries in one list.
pub const JOURNAL_LISTED: i64 = 100;
