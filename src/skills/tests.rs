//! Directories of skills as people and agents leave them.

use std::fs;
use std::path::Path;

use super::*;

struct Place {
    dir: tempfile::TempDir,
    skills: AgentSkills,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let skills = AgentSkills::new("a", &dir.path().join("agents/a"), &dir.path().join("skills"));
    Place { dir, skills }
}

impl Place {
    fn put(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.skills
            .list()
            .iter()
            .map(|skill| format!("{}{}", skill.name, if skill.is_shared { "*" } else { "" }))
            .collect()
    }

    fn prompt(&self, message: &str, scheduled: Option<&str>) -> String {
        let has_tool = |name: &str| name == "there";
        self.skills.prompt_for(&Occasion { message, scheduled, has_tool: &has_tool })
    }

    fn create(&self, name: &str) -> Result<SkillChange, SkillError> {
        let new = NewSkill { name: name.into(), body: "do it".into(), ..NewSkill::default() };
        self.skills.create(new, Allowance::PEOPLE)
    }
}

fn skill(name: &str, more: &str, body: &str) -> String {
    format!("+++\nname = \"{name}\"\n{more}\n+++\n\n{body}\n")
}

#[test]
fn own_skills_win_and_broken_files_harm_nobody() {
    let place = place();
    assert_eq!((place.names(), place.prompt("x", None)), (vec![], String::new()));
    place.put("skills/b.md", &skill("b", "", "shared b"));
    place.put("skills/c/SKILL.md", &skill("c", "", "shared c"));
    place.put("skills/.hidden.md", &skill("hidden", "", "no"));
    place.put("skills/readme.txt", "no skill");
    place.put("skills/broken.md", "+++\nname = ");
    place.put("skills/empty.md", "");
    place.put("skills/huge.md", &skill("huge", "", &"x".repeat(crate::limits::SKILL_BYTES_MAX)));
    fs::create_dir_all(place.dir.path().join("skills/odd.md/SKILL.md")).unwrap();
    place.put("agents/a/skills/mine.md", &skill("b", "description = \"mine\"", "own b"));
    place.put("agents/a/skills/z.md", &skill("b", "", "second of the name"));
    assert_eq!(place.names(), ["c*", "b"]);
    assert_eq!(place.prompt("x", None), "# Skills\n\n## c\n\nshared c\n\n## b\n\nmine\n\nown b");
    // Edited by hand: the next look sees it.
    place.put("skills/broken.md", &skill("fixed", "triggers = [\"command:f\"]", "fixed"));
    place.put("agents/a/skills/mine.md", "no longer one");
    place.put("agents/a/skills/z.md", "nor this");
    assert_eq!(place.names(), ["b*", "c*", "fixed*"]);
    assert!(place.prompt("/f", None).starts_with("# Skills\n\n## fixed\n\nfixed\n\n## b"));
    assert!(place.prompt("x", Some("fixed")).contains("## fixed") && !place.prompt("x", None).contains("fixed"));
    place.put("skills/b.md", &skill("b", "[requires]\ntools = [\"there\"]", "b"));
    place.put("skills/c/SKILL.md", &skill("c", "[requires]\ntools = [\"there\", \"gone\"]", "c"));
    assert_eq!(place.prompt("", None), "# Skills\n\n## b\n\nb");
}

#[test]
fn changes_stay_where_they_belong() {
    let place = place();
    for bad in ["../x", "", "a/b", "A", ".x"] {
        assert!(matches!(place.create(bad), Err(SkillError::Invalid(_))), "{bad}");
    }
    let made = place.create("one").unwrap();
    assert_eq!((made.file.as_str(), made.before), ("one.md", None));
    assert_eq!(made.after, "+++\nname = \"one\"\nversion = \"1.0.0\"\n+++\n\ndo it\n");
    assert!(matches!(place.create("one"), Err(SkillError::Exists { .. })));
    place.put("agents/a/skills/two.md", "not a skill, and still a file");
    assert!(matches!(place.create("two"), Err(SkillError::Exists { .. })));
    let edit = |body: Option<&str>, triggers: Option<&[&str]>| SkillEdit {
        body: body.map(str::to_owned),
        triggers: triggers.map(|list| list.iter().map(|&text| text.to_owned()).collect()),
        ..SkillEdit::default()
    };
    let changed = place.skills.update("one", edit(None, Some(&["command:x"])), Allowance::PEOPLE).unwrap();
    assert_eq!(changed.before.as_deref(), Some(made.after.as_str()));
    assert_eq!(place.skills.find("one").unwrap().body, "do it");
    for (wrong, expected) in [(edit(Some(" "), None), "body is required"), (edit(None, Some(&["x"])), "command:<name>")]
    {
        let error = place.skills.update("one", wrong, Allowance::PEOPLE).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let long = edit(Some(&"x".repeat(crate::limits::AGENT_SKILL_BYTES_MAX)), None);
    assert!(place.skills.update("one", long, Allowance::AGENT).unwrap_err().to_string().contains("at most 16384"));

    place.put("skills/s.md", &skill("s", "author = \"x\"", "shared"));
    assert!(matches!(place.skills.delete("s"), Err(SkillError::Shared { .. })));
    place.skills.update("s", edit(Some("mine now"), None), Allowance::PEOPLE).unwrap();
    assert_eq!(place.names(), ["one", "s"]);
    assert!(fs::read_to_string(place.dir.path().join("skills/s.md")).unwrap().contains("shared"));
    assert!(fs::read_to_string(place.dir.path().join("agents/a/skills/s.md")).unwrap().contains("author"));
    place.skills.delete("s").unwrap();
    assert_eq!(place.names(), ["s*", "one"]);
    assert!(matches!(place.skills.delete("no"), Err(SkillError::NotFound { .. })));

    // Undone only while nobody changed it since.
    let text = changed.after.clone();
    assert!(!place.skills.put_back("one.md", None, |now| now == Some("other")).unwrap());
    assert!(place.skills.put_back("one.md", changed.before.as_deref(), |now| now == Some(&text)).unwrap());
    assert!(place.skills.find("one").unwrap().info.triggers.is_empty());
    for bad in ["../x.md", "a/b.md", "x", "/etc/x.md", ".md", "../SKILL.md", "a/../../SKILL.md"] {
        assert!(place.skills.put_back(bad, Some("x"), |_| true).is_err(), "{bad}");
    }
}

#[test]
fn files_beside_a_skill_stay_beside_it() {
    let place = place();
    place.create("one").unwrap();
    let own = place.dir.path().join("agents/a/skills");
    assert_eq!(place.skills.files("one").unwrap(), []);
    assert!(matches!(place.skills.file("one", "a.txt"), Err(SkillError::NoFile { .. })));
    place.skills.put_file("one", "refs/a.txt", "text").unwrap();
    assert!(own.join("one/SKILL.md").is_file() && !own.join("one.md").exists());
    assert_eq!(place.skills.files("one").unwrap(), [("refs/a.txt".to_owned(), 4)]);
    assert_eq!(place.skills.file("one", "refs/a.txt").unwrap(), "text");
    assert!(place.prompt("", None).ends_with("do it\n\nIts files, which skill_get reads: refs/a.txt"));
    for bad in ["", "..", "../x", "a//b", "/etc/passwd", ".x", "SKILL.md", "skill.md", "a b", "a/b/c/d/e"] {
        assert!(matches!(place.skills.put_file("one", bad, "x"), Err(SkillError::Invalid(_))), "{bad}");
        assert!(place.skills.file("one", bad).is_err() && place.skills.delete_file("one", bad).is_err(), "{bad}");
    }
    // Links lead nowhere.
    let secret = place.dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, own.join("one").join(name)).unwrap();
    link(&secret, "link.txt");
    link(place.dir.path(), "away");
    for bad in ["link.txt", "away/secret", "away/new"] {
        assert!(matches!(place.skills.file("one", bad), Err(SkillError::NoFile { .. })), "{bad}");
        assert!(place.skills.put_file("one", bad, "x").is_err(), "{bad}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(place.skills.files("one").unwrap().len(), 1);
    place.skills.delete_file("one", "refs/a.txt").unwrap();
    assert!(matches!(place.skills.delete_file("one", "refs"), Err(SkillError::NoFile { .. })));
    place.skills.delete("one").unwrap();
    assert!(!own.join("one").exists() && secret.exists());
}
