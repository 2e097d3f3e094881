//! `holt import` of a data directory laid out as contract http-api 13.4 and engine 0 describe it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::hub::Builder;

const KEY: &str = "dk_c2l4dHktdGhyZWUgYnl0ZXMgYXJlIG5vdCBuZWVkZWQ";
const STATIC_KEY: &str = "e2e-test-token-12345678";
const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

const SCHEMA: &str = "
CREATE TABLE conversations(id TEXT PRIMARY KEY, adapter TEXT NOT NULL, external_id TEXT NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP);
CREATE UNIQUE INDEX idx_conversations_adapter_ext ON conversations(adapter, external_id);
CREATE TABLE messages(id INTEGER PRIMARY KEY AUTOINCREMENT, conversation_id TEXT NOT NULL, role TEXT NOT NULL,
  content TEXT NOT NULL, tokens_used INTEGER DEFAULT 0, cost REAL DEFAULT 0.0, created_at DATETIME DEFAULT CURRENT_TIMESTAMP);
CREATE INDEX idx_messages_conv ON messages(conversation_id, created_at);
CREATE TABLE approvals(id TEXT PRIMARY KEY, agent_name TEXT NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
  summary TEXT NOT NULL, payload TEXT NOT NULL, callback_data TEXT NOT NULL DEFAULT '', external_id TEXT NOT NULL,
  adapter_name TEXT NOT NULL, conversation_id TEXT NOT NULL DEFAULT '', created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  resolved_at DATETIME, resolved_by TEXT NOT NULL DEFAULT '');
CREATE TABLE auto_approve_rules(id TEXT PRIMARY KEY, agent_name TEXT NOT NULL, tool_name TEXT NOT NULL,
  scope TEXT NOT NULL DEFAULT 'permanent', conversation_id TEXT NOT NULL DEFAULT '',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP, created_by TEXT NOT NULL DEFAULT '');
CREATE TABLE kv(agent_name TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP, expires_at DATETIME, PRIMARY KEY(agent_name, key));
CREATE TABLE api_keys(id TEXT PRIMARY KEY, name TEXT NOT NULL, key_hash TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL,
  created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, last_used_at DATETIME, revoked_at DATETIME);
CREATE TABLE oauth_tokens(tool_name TEXT PRIMARY KEY, access_token BLOB NOT NULL, refresh_token BLOB,
  token_type TEXT DEFAULT 'Bearer', expiry DATETIME, scopes TEXT, client_id TEXT, client_secret BLOB, token_url TEXT,
  auth_style INTEGER, resource_url TEXT, created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP);
INSERT INTO oauth_tokens(tool_name, access_token, expiry, scopes, auth_style)
  VALUES ('calendar', zeroblob(40), '2099-01-01 00:00:00.5 +0000 UTC m=+3', 'a b', 2), ('cut', zeroblob(5), NULL, '', 0);
";

fn hash(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A data directory of the reference with something of everything, and something wrong of most.
struct Old {
    dir: PathBuf,
    /// Keeps the write-ahead log unmerged, as after a crash.
    wal: bool,
}

impl Old {
    fn new(parent: &Path, wal: bool) -> Self {
        let dir = parent.join("denkeeper");
        for sub in ["data", "agents/default/skills", "agents/cook", "skills/garden"] {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let old = Self { dir, wal };
        old.files();
        old.memory();
        old.sessions();
        old
    }

    fn files(&self) {
        let dir = self.dir.display();
        let config = format!(
            "# kept\ndata_dir = \"{dir}\"\n[llm]\ndefault_provider = \"ollama\" # the box in the cellar\ndefault_model = \"test-model\"\n\
             [llm.ollama]\nbase_url = \"http://127.0.0.1:1\"\n[memory]\ndb_path = \"{dir}/data/memory.db\"\n\
             [api]\nlisten = \"127.0.0.1:0\"\n[api.auth]\nsession_secret = \"{SECRET}\"\n\
             [[api.keys]]\nname = \"e2e-test\"\nkey = \"{STATIC_KEY}\"\nscopes = [\"admin\", \"sessions:read\"]\n\
             [[agents]]\nname = \"default\"\npersona_dir = \"{dir}/agents/default\"\n[[agents]]\nname = \"cook\"\n\
             [telegram]\ntoken = \"t\"\nallowed_users = [1]\n"
        );
        let write = |path: &str, text: &str| std::fs::write(self.dir.join(path), text).unwrap();
        write("denkeeper.toml", &config);
        write("agents/default/SOUL.md", "You are calm.\n");
        write("agents/default/skills/weather.md", "+++\nname = \"weather\"\n+++\n\nLook outside.\n");
        write("agents/cook/SOUL.md", "You cook.\n");
        write("skills/garden/SKILL.md", "+++\nname = \"garden\"\n+++\n\nWater the plants.\n");
        std::os::unix::fs::symlink("/etc/passwd", self.dir.join("skills/link.md")).unwrap();
    }

    fn memory(&self) {
        let conn = Connection::open(self.dir.join("data/memory.db")).unwrap();
        conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
        conn.execute_batch(SCHEMA).unwrap();
        conn.execute_batch(&format!(
            "INSERT INTO conversations(id, adapter, external_id, created_at) VALUES
               ('default:telegram:42', 'default:telegram', '42', '2025-01-02 03:04:05'),
               ('00aa11bb22cc33dd', 'ws', '00aa11bb22cc33dd', '2025-02-03T04:05:06Z'),
               ('', 'ws', 'none', '2025-02-03T04:05:06Z');
             INSERT INTO messages(conversation_id, role, content, tokens_used, cost, created_at) VALUES
               ('default:telegram:42', 'user', 'Where is the otter?', 0, 0, '2025-01-02 03:04:05'),
               ('default:telegram:42', 'assistant', 'In the river.', 17, 0.25, '2025-01-02 03:04:09'),
               ('default:telegram:42', 'tool', 'not a role', 0, 0, '2025-01-02 03:04:10'),
               ('00aa11bb22cc33dd', 'user', 'Grüße', 0, 0, '2025-02-03 04:05:06.5 +0100 CET m=+0.5'),
               ('00aa11bb22cc33dd', 'assistant', 'Hello', 5, 0, 'whenever'),
               ('sched:digest:1700000000000000000', 'user', 'daily digest', 0, 0, '2025-03-01 00:00:00');
             INSERT INTO api_keys VALUES
               ('0123456789abcdef', 'laptop', '{}', '[\"chat\",\"sessions:read\",\"kv:read\",\"skills:read\",\"approvals:read\",\"costs:read\"]',
                '2025-01-01 10:00:00.123456789 +0000 UTC', NULL, NULL),
               ('1123456789abcdef', 'gone', '{}', '[\"admin\"]', '2025-01-01 10:00:00 +0000 UTC', NULL,
                '2025-01-03 10:00:00 +0000 UTC m=+1.5'),
               ('2123456789abcdef', 'broken', 'no hash', 'no list', '2025-01-01 10:00:00 +0000 UTC', NULL, NULL);
             INSERT INTO auto_approve_rules(id, agent_name, tool_name, created_by) VALUES ('r1', 'default', 'web_fetch', 'api');
             INSERT INTO kv(agent_name, key, value, expires_at) VALUES
               ('default', 'stays', 'for ever', NULL), ('default', 'later', 'a while', '2099-01-01 00:00:00'),
               ('default', 'over', 'gone', '2020-01-01 00:00:00');
             INSERT INTO approvals(id, agent_name, kind, summary, payload, external_id, adapter_name)
               VALUES ('a1', 'default', 'tool_call', 's', '{{}}', 'x', 'ws');
             INSERT INTO approvals(id, agent_name, kind, status, summary, payload, external_id, adapter_name, resolved_at, resolved_by)
               VALUES ('a2', 'cook', 'create_skill', 'approved', 'Create new skill: soup', '# soup', 'x', 'ws',
                 '2026-01-03 10:00:00.5 +0000 UTC m=+1.5', 'telegram'),
               ('a3', 'cook', 'tool_call', 'denied', 'Execute tool \"tool_add\" with args: {{\"env\":\"otter\"}}',
                 '{{\"env\":\"otter\"}}', 'x', 'ws', NULL, 'api'),
               ('a4', 'cook', 'tool_call', 'perhaps', 's', '', 'x', 'ws', NULL, '');",
            hash(KEY),
            hash("dk_gone")
        ))
        .unwrap();
        self.close(conn, "memory.db");
    }

    fn sessions(&self) {
        let conn = Connection::open(self.dir.join("data/sessions.db")).unwrap();
        conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
        conn.execute_batch(
            "CREATE TABLE sessions(id TEXT PRIMARY KEY, email TEXT NOT NULL, scopes TEXT NOT NULL DEFAULT '[]',
               user_agent TEXT DEFAULT '', ip TEXT DEFAULT '', created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
               expires_at DATETIME NOT NULL, last_seen_at DATETIME DEFAULT CURRENT_TIMESTAMP);",
        )
        .unwrap();
        for (id, expires) in [("a", "2099-01-01T00:00:00Z"), ("b", "2020-01-01T00:00:00Z")] {
            let sql = "INSERT INTO sessions(id, email, scopes, expires_at) VALUES (?1, 'admin', '[\"admin\"]', ?2)";
            conn.execute(sql, params![id.repeat(64), expires]).unwrap();
        }
        self.close(conn, "sessions.db");
    }

    /// Closing merges the log; a copy of both files taken before is what a crash leaves.
    fn close(&self, conn: Connection, name: &str) {
        let path = |suffix: &str| self.dir.join(format!("data/{name}{suffix}"));
        let kept: Vec<Vec<u8>> = ["", "-wal"].iter().map(|suffix| std::fs::read(path(suffix)).unwrap()).collect();
        assert!(conn.close().is_ok());
        if self.wal {
            std::fs::write(path(""), &kept[0]).unwrap();
            std::fs::write(path("-wal"), &kept[1]).unwrap();
        }
    }

    /// Every file, its bytes and its time of change.
    fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
        fn walk(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>, std::time::SystemTime)>) {
            let mut entries: Vec<PathBuf> =
                std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                let data = std::fs::symlink_metadata(&path).unwrap();
                if data.is_dir() {
                    found.push((path.clone(), Vec::new(), data.modified().unwrap()));
                    walk(&path, found);
                } else {
                    found.push((path.clone(), std::fs::read(&path).unwrap(), data.modified().unwrap()));
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.dir, &mut found);
        found
    }
}

fn import(old: &Old, target: &Path, more: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.arg("import").arg(&old.dir).args(more).arg("--data-dir").arg(target);
    let output = command.env_clear().stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn report(output: &str) -> Value {
    serde_json::from_str(output).unwrap()
}

/// `[new, grown, there, skipped]` of a kind.
fn counts(report: &Value, kind: &str) -> [u64; 4] {
    let found = report["kinds"].as_array().unwrap().iter().find(|entry| entry["kind"] == kind).unwrap();
    ["new", "grown", "there", "skipped"].map(|field| found[field].as_u64().unwrap())
}

const KINDS: [(&str, [u64; 4]); 10] = [
    ("config", [1, 0, 0, 0]),
    ("personas", [2, 0, 0, 0]),
    ("skills", [2, 0, 0, 1]),
    ("keys", [2, 0, 0, 1]),
    ("conversations", [3, 0, 0, 1]),
    ("rules", [1, 0, 0, 0]),
    ("values", [2, 0, 0, 1]),
    ("approvals", [3, 0, 0, 1]),
    ("tokens", [1, 0, 0, 1]),
    ("logins", [1, 0, 0, 1]),
];

#[test]
fn everything_comes_over_once_and_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let old = Old::new(dir.path(), true);
    let target = dir.path().join("holt");
    let before = old.snapshot();

    // A rehearsal says the same and writes nothing.
    let (code, out, error) = import(&old, &target, &["--dry-run", "--json"]);
    assert_eq!(code, 0, "{error}");
    let rehearsed = report(&out);
    assert!(!target.exists());

    let (code, out, error) = import(&old, &target, &["--json"]);
    assert_eq!(code, 0, "{error}");
    let first = report(&out);
    for (kind, expected) in KINDS {
        assert_eq!(counts(&first, kind), expected, "{kind}: {out}");
        assert_eq!(counts(&rehearsed, kind), expected, "{kind}, rehearsed");
    }
    assert_eq!(counts(&first, "messages")[0], 5);
    assert!(
        out.contains("a message was left out") && out.contains("has expired") && out.contains("symbolic link"),
        "{out}"
    );
    let open = first["kinds"].as_array().unwrap().iter().find(|entry| entry["kind"] == "approvals").unwrap();
    assert_eq!(open["notes"].as_array().unwrap().len(), 2, "{open}");
    assert!(out.contains("came as expired"), "{out}");
    assert!(first["warnings"].to_string().contains("telegram: not supported"), "{out}");

    // The second time everything is there.
    let (code, out, _) = import(&old, &target, &["--json"]);
    assert_eq!(code, 0);
    for (kind, [new, _, _, skipped]) in KINDS {
        assert_eq!(counts(&report(&out), kind), [0, 0, new, skipped], "{kind} again: {out}");
    }
    assert_eq!(old.snapshot(), before, "the source is as it was");
    let toml = std::fs::read_to_string(target.join("holt.toml")).unwrap();
    assert!(
        toml.starts_with("# kept\n") && toml.contains("# the box in the cellar") && !toml.contains("memory.db"),
        "{toml}"
    );
    let left: Vec<_> = std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("tmp")), "{left:?}");

    let hub = Builder::new(&target).start();
    assert!(hub.pin.is_none(), "a hub with keys is set up");
    let client = hub.client().with_key(KEY);
    let list = client.get("/api/v1/sessions").json();
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["sched:digest:1700000000000000000", "00aa11bb22cc33dd", "default:telegram:42"]);
    let messages = client.get("/api/v1/sessions/default%3Atelegram%3A42/messages").json();
    assert_eq!(messages[0]["content"], "Where is the otter?");
    assert_eq!(messages[1]["created_at"], "2025-01-02T03:04:09Z");
    assert_eq!(messages[1]["tokens_used"], 17);
    let messages = client.get("/api/v1/sessions/00aa11bb22cc33dd/messages").json();
    assert_eq!(messages[0]["created_at"], "2025-02-03T03:05:06Z");
    assert_eq!(messages[1]["created_at"], "2025-02-03T03:05:06Z", "that of the message before");
    assert_eq!(client.get("/api/v1/kv/default/later").json()["value"], "a while");
    assert_eq!(client.get("/api/v1/kv/default/over").status, 404);
    assert_eq!(client.get("/api/v1/auto-approve").json()[0]["tool_name"], "web_fetch");
    // An open request has no turn that would go on: it is history, like the others.
    let approvals = client.get("/api/v1/approvals").json();
    let found = |id: &str| approvals.as_array().unwrap().iter().find(|row| row["id"] == id).unwrap().clone();
    assert_eq!((&found("a1")["status"], &found("a1")["resolved_by"]), (&json!("expired"), &json!("expired")));
    assert_eq!((&found("a2")["status"], &found("a2")["payload"]), (&json!("approved"), &json!("# soup")));
    assert_eq!(found("a2")["resolved_at"], "2026-01-03T10:00:00.5Z");
    assert_eq!(found("a3")["summary"], "Execute tool \"tool_add\"");
    assert!(!approvals.to_string().contains("otter"), "{approvals}");
    assert_eq!(hub.client().with_key(STATIC_KEY).get("/api/v1/keys").status, 200);
    assert_eq!(hub.client().with_key("dk_gone").get("/api/v1/sessions").status, 401, "revoked it stays");
    assert_eq!(std::fs::read_to_string(target.join("agents/cook/SOUL.md")).unwrap(), "You cook.\n");
    assert!(target.join("skills/garden/SKILL.md").is_file());
    let sql = "SELECT access_token, expiry FROM oauth_tokens";
    let token = hub.database().query_row(sql, [], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?)));
    assert_eq!(token.unwrap(), (vec![0; 40], "2099-01-01T00:00:00.500Z".to_owned()));
    let costs = hub.database().query_row("SELECT sum(cost_usd), count(*) FROM llm_calls", [], |row| {
        Ok((row.get::<_, f64>(0)?, row.get::<_, i64>(1)?))
    });
    assert_eq!(costs.unwrap(), (0.25, 2));

    // Not while the hub runs.
    let (code, _, error) = import(&old, &target, &[]);
    assert!(code == 1 && error.contains("a hub is running"), "{error}");
}

#[test]
fn what_is_here_stays_and_what_went_on_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let old = Old::new(dir.path(), false);
    let target = dir.path().join("holt");
    assert_eq!(import(&old, &target, &[]).0, 0);
    let ours = Connection::open(target.join("holt.db")).unwrap();
    ours.execute_batch(
        "UPDATE messages SET content = 'ours' WHERE content = 'Grüße';
         UPDATE kv SET value = 'ours' WHERE key = 'stays';
         UPDATE api_keys SET revoked_at = '2026-01-01T00:00:00.000Z' WHERE name = 'laptop';
         INSERT INTO api_keys(id, name, key_hash, scopes) VALUES ('f', 'phone', 'x', '[]');",
    )
    .unwrap();
    std::fs::write(target.join("agents/cook/SOUL.md"), "ours").unwrap();
    let theirs = Connection::open(old.dir.join("data/memory.db")).unwrap();
    theirs
        .execute_batch(&format!(
            "INSERT INTO messages(conversation_id, role, content) VALUES
               ('default:telegram:42', 'user', 'And now?'), ('00aa11bb22cc33dd', 'user', 'And now?');
             INSERT INTO api_keys(id, name, key_hash, scopes) VALUES ('3123456789abcdef', 'phone', '{}', '[\"chat\"]');",
            hash("dk_phone")
        ))
        .unwrap();
    assert!(theirs.close().is_ok());

    let (code, out, error) = import(&old, &target, &["--json"]);
    assert_eq!(code, 0, "{error}");
    let again = report(&out);
    assert_eq!(counts(&again, "conversations"), [0, 1, 1, 2], "{out}");
    assert_eq!(counts(&again, "messages")[0], 1);
    assert_eq!(counts(&again, "values"), [0, 0, 1, 2]);
    assert_eq!(counts(&again, "keys"), [0, 0, 2, 2]);
    assert_eq!(counts(&again, "personas"), [0, 0, 1, 1]);
    for why in ["another key has that name here", "another conversation of that id is here", "ours stays"] {
        assert!(out.contains(why), "{why}: {out}");
    }
    let one = |sql: &str| ours.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(one("SELECT count(*) FROM api_keys WHERE name = 'laptop' AND revoked_at IS NULL"), 0, "revoked here");
    assert_eq!(one("SELECT count(*) FROM messages WHERE conversation_id = 'default:telegram:42'"), 3);
    assert_eq!(one("SELECT message_count FROM conversation_info WHERE conversation_id = 'default:telegram:42'"), 3);
    assert_eq!(one("SELECT count(*) FROM kv WHERE value = 'ours'"), 1);
    assert_eq!(std::fs::read_to_string(target.join("agents/cook/SOUL.md")).unwrap(), "ours");
}

#[test]
fn what_cannot_be_imported_is_refused_or_reported() {
    let dir = tempfile::tempdir().unwrap();
    let old = Old::new(dir.path(), false);
    let target = dir.path().join("holt");

    // A program that has the database open is named.
    let theirs = Connection::open(old.dir.join("data/memory.db")).unwrap();
    theirs.query_row("SELECT count(*) FROM kv", [], |_| Ok(())).unwrap();
    let (code, _, error) = import(&old, &target, &[]);
    assert!(code == 1 && error.contains("is in use by process") && error.contains("stop the program"), "{error}");
    assert!(!target.join("holt.toml").exists() && !target.join("holt.db").exists());
    assert!(theirs.close().is_ok());

    let (code, _, error) = import(&old, &old.dir, &[]);
    assert!(code == 1 && error.contains("--data-dir"), "{error}");
    let empty = Old { dir: dir.path().join("empty"), wal: false };
    std::fs::create_dir(&empty.dir).unwrap();
    let (code, _, error) = import(&empty, &target, &[]);
    assert!(code == 1 && error.contains("holds no data"), "{error}");
    let (code, _, error) = import(&old, &target, &["--source-config", "/nothing/here.toml"]);
    assert!(code == 1 && error.contains("/nothing/here.toml"), "{error}");

    // A configuration that Holt would not start with does not come, the rest does.
    let config = old.dir.join("denkeeper.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("listen = \"127.0.0.1:0\"", "listen = \"nowhere\"")).unwrap();
    // A file that breaks off is read as far as it goes.
    let memory = old.dir.join("data/memory.db");
    let bytes = std::fs::read(&memory).unwrap();
    std::fs::write(&memory, &bytes[..bytes.len() - 4096]).unwrap();
    let (code, out, error) = import(&old, &target, &["--json"]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(counts(&report(&out), "config"), [0, 0, 0, 1]);
    assert!(out.contains("api.listen") && out.contains("is damaged"), "{out}");
    assert_eq!(counts(&report(&out), "personas")[0], 2);
    assert_eq!(counts(&report(&out), "logins"), [0, 0, 0, 2], "without its secret no cookie can be read");
    assert_eq!(counts(&report(&out), "tokens")[..3], [0, 0, 0]);
    assert!(!target.join("holt.toml").exists());
}
