//! What a configuration file of the reference becomes here: the same file, comments kept, with the paths of the new data
//! directory.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::env::Env;
use super::error::ConfigError;
use super::place::REFERENCE_FILE;
use super::raw::read_document;
use super::{Config, Flags, load};

/// The reference's database, in its data directory.
const MEMORY: &str = "data/memory.db";
/// The reference's logins, always in its data directory.
const SESSIONS: &str = "data/sessions.db";

/// A data directory of the reference, as its configuration tells.
pub struct ReferenceSetup {
    pub dir: PathBuf,
    /// None where it has no file.
    pub config: Option<PathBuf>,
    pub memory: PathBuf,
    pub sessions: PathBuf,
    /// Hex, seals its cookies and tokens.
    pub session_secret: Option<String>,
    /// Directories of personas and skills elsewhere below `dir` than where they usually are; relative to it.
    pub more_dirs: Vec<PathBuf>,
    doc: DocumentMut,
    /// Where `dir` was when the file was written.
    named_dir: PathBuf,
}

/// Where this Holt keeps its things, whatever a reference's setup says: its data directory, its configuration file and
/// its database. Unlike for a start, the file need not exist.
pub fn own_place(flags: &Flags, env: &Env) -> Result<(PathBuf, PathBuf, PathBuf), ConfigError> {
    let home = env.get("HOME").map(|home| Path::new(home).join(".local/share"));
    let data_home = env.get("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or(home);
    let given = flags.data_dir.clone().or_else(|| env.get("HOLT_DATA_DIR").map(PathBuf::from));
    let dir = given.or_else(|| data_home.map(|dir| dir.join("holt"))).ok_or(ConfigError::NoDataDir)?;
    let asked = flags.config.clone().or_else(|| env.get("HOLT_CONFIG").map(PathBuf::from));
    let file = asked.unwrap_or_else(|| dir.join("holt.toml"));
    if !file.exists() {
        let db = dir.join("holt.db");
        return Ok((dir, file, db));
    }
    let config = load(&Flags { config: Some(file), ..flags.clone() }, env)?;
    Ok((config.data_dir, config.config_path, config.db_path))
}

impl ReferenceSetup {
    /// Looks at the directory; reads the file `config`, or the one that is there. Changes nothing.
    pub fn read(dir: &Path, config: Option<&Path>, env: &Env) -> Result<Self, ConfigError> {
        let usual = dir.join(REFERENCE_FILE);
        let config = match config {
            Some(asked) => {
                std::fs::metadata(asked).map_err(|cause| ConfigError::Read { path: asked.to_owned(), cause })?;
                Some(asked.to_owned())
            }
            None => usual.exists().then_some(usual),
        };
        let doc = match &config {
            Some(path) => read_document(path)?.unwrap_or_default(),
            None => DocumentMut::new(),
        };
        let text = |path: &[&str]| find(&doc, path).filter(|text| !text.is_empty()).map(str::to_owned);
        let named_dir = text(&["data_dir"]).map_or_else(|| dir.to_owned(), PathBuf::from);
        let variable = |name: &str| env.get(&format!("DENKEEPER_{name}")).map(str::to_owned);
        let memory = variable("MEMORY_DB_PATH").or_else(|| text(&["memory", "db_path"]));
        let mut setup = Self {
            dir: dir.to_owned(),
            config,
            memory: dir.join(MEMORY),
            sessions: dir.join(SESSIONS),
            session_secret: variable("API_AUTH_SESSION_SECRET").or_else(|| text(&["api", "auth", "session_secret"])),
            more_dirs: Vec::new(),
            doc,
            named_dir,
        };
        if let Some(path) = memory {
            let path = PathBuf::from(path);
            // A directory that was moved or copied: the file is where it was within it.
            setup.memory = match setup.below(&path) {
                Some(below) => setup.dir.join(below),
                None => path,
            };
        }
        setup.more_dirs = setup.dirs();
        Ok(setup)
    }

    /// The file for this Holt, and the settings in it that still point to the old directory.
    pub fn rewritten(&self, data_dir: &Path) -> (String, Vec<String>) {
        let mut doc = self.doc.clone();
        let root = doc.as_table_mut();
        if root.contains_key("data_dir") {
            set(root, "data_dir", &data_dir.display().to_string());
        }
        if let Some(memory) = root.get_mut("memory").and_then(Item::as_table_like_mut)
            && memory.contains_key("db_path")
        {
            set(memory, "db_path", &data_dir.join("holt.db").display().to_string());
        }
        each_dir(root, &mut |table, key, path| {
            if let Some(below) = self.below(path) {
                set(table, key, &data_dir.join(below).display().to_string());
            }
        });
        // Without it the reference listens on all interfaces, Holt only on this machine.
        let api = root.entry("api").or_insert_with(|| Item::Table(Table::new()));
        if let Some(api) = api.as_table_like_mut()
            && !api.contains_key("listen")
        {
            set(api, "listen", ":8080");
        }
        let mut left = Vec::new();
        self.still_there(root, "", &mut left);
        (doc.to_string(), left)
    }

    /// A path relative to the directory, if it was within it.
    fn below(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.named_dir).or_else(|_| path.strip_prefix(&self.dir)).ok()?;
        let plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        plain.then(|| below.to_owned())
    }

    fn dirs(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = Vec::new();
        let mut doc = self.doc.clone();
        each_dir(doc.as_table_mut(), &mut |_, _, path| {
            let usual = |below: &Path| below.starts_with("agents") || below.starts_with("skills");
            if let Some(below) = self.below(path).filter(|below| !usual(below) && !found.contains(below)) {
                found.push(below);
            }
        });
        found
    }

    fn still_there(&self, table: &dyn TableLike, path: &str, found: &mut Vec<String>) {
        for (key, item) in table.iter() {
            let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            match item {
                Item::ArrayOfTables(tables) => tables.iter().for_each(|table| self.still_there(table, &path, found)),
                item => match (item.as_str(), item.as_table_like()) {
                    (Some(text), _) if Path::new(text).starts_with(&self.dir) => found.push(path),
                    (_, Some(table)) => self.still_there(table, &path, found),
                    _ => {}
                },
            }
        }
    }
}

/// Writes a whole configuration file, as safely as any change of one: the old one stays as `.bak`.
pub fn replace(path: &Path, text: &str) -> Result<(), ConfigError> {
    super::ConfigWriter::new(path).edit(|doc| {
        *doc = text.parse().map_err(|error: toml_edit::TomlError| ConfigError::Edit {
            path: path.to_owned(),
            reason: error.message().replace('\n', " "),
        })?;
        Ok(())
    })
}

/// What a start would make of a file; the data directory is given.
pub fn judge(path: &Path, data_dir: &Path, env: &Env) -> Result<Config, ConfigError> {
    load(&Flags { config: Some(path.to_owned()), data_dir: Some(data_dir.to_owned()), listen: None }, env)
}

fn find<'a>(doc: &'a DocumentMut, path: &[&str]) -> Option<&'a str> {
    let mut item = doc.as_item();
    for key in path {
        item = item.as_table_like()?.get(key)?;
    }
    item.as_str()
}

/// Calls `change` with every setting that names a directory of personas or skills.
fn each_dir(root: &mut Table, change: &mut dyn FnMut(&mut dyn TableLike, &str, &Path)) {
    let mut within = |table: &mut dyn TableLike| {
        for key in ["persona_dir", "skills_dir"] {
            let path = table.get(key).and_then(Item::as_str).filter(|text| !text.is_empty()).map(PathBuf::from);
            if let Some(path) = path {
                change(table, key, &path);
            }
        }
    };
    if let Some(agent) = root.get_mut("agent").and_then(Item::as_table_like_mut) {
        within(agent);
    }
    match root.get_mut("agents") {
        Some(Item::ArrayOfTables(agents)) => agents.iter_mut().for_each(|agent| within(agent)),
        Some(Item::Value(Value::Array(agents))) => {
            agents.iter_mut().filter_map(Value::as_inline_table_mut).for_each(|agent| within(agent));
        }
        _ => {}
    }
}

/// Sets a text; the comment behind an old value stays.
fn set(table: &mut dyn TableLike, key: &str, text: &str) {
    let mut new = Value::from(text);
    match table.get_mut(key) {
        Some(Item::Value(old)) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        _ => {
            table.insert(key, Item::Value(new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_stays_as_it_is_but_for_the_paths() {
        let dir = tempfile::tempdir().unwrap();
        let old = "/home/ada/.denkeeper";
        let text = format!(
            "# mine\ndata_dir = \"{old}\" # base\n\n[memory]\ndb_path = '{old}/data/memory.db'\n[[agents]]\nname = \"default\"\n\
             persona_dir = \"{old}/people/me\" # me\nskills_dir = \"/srv/skills\"\n[api.auth]\nsession_secret = \"ab\"\n\
             [custom]\nunknown = [1]\n"
        );
        std::fs::write(dir.path().join(REFERENCE_FILE), &text).unwrap();
        let setup = ReferenceSetup::read(dir.path(), None, &Env::default()).unwrap();
        assert_eq!(setup.memory, dir.path().join("data/memory.db"));
        assert_eq!(setup.session_secret.as_deref(), Some("ab"));
        assert_eq!(setup.more_dirs, [PathBuf::from("people/me")]);
        let (new, left) = setup.rewritten(Path::new("/var/lib/holt"));
        assert!(left.is_empty(), "{left:?}");
        let expected = text
            .replace(&format!("\"{old}\" # base"), "\"/var/lib/holt\" # base")
            .replace(&format!("'{old}/data/memory.db'"), "\"/var/lib/holt/holt.db\"")
            .replace(&format!("{old}/people"), "/var/lib/holt/people");
        let listen = "listen = \":8080\"\n";
        assert!(new.contains(listen), "{new}");
        assert_eq!(
            new.replace(listen, "").replace("[api]\n", "").replace("\n\n", "\n"),
            expected.replace("\n\n", "\n")
        );
    }

    #[test]
    fn what_points_to_the_old_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().display();
        let text = format!(
            "[api]\nlisten = \"127.0.0.1:1\"\ncert_file = \"{old}/cert.pem\"\n[tools.x]\ncommand = \"{old}/x\"\n"
        );
        std::fs::write(dir.path().join(REFERENCE_FILE), text).unwrap();
        let setup = ReferenceSetup::read(dir.path(), None, &Env::default()).unwrap();
        let (new, left) = setup.rewritten(Path::new("/new"));
        assert_eq!(left, ["api.cert_file", "tools.x.command"]);
        assert!(new.contains("127.0.0.1:1") && !new.contains(":8080"));
    }
}
