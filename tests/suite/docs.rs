//! Checks the documentation: links have targets, tables have every code and reason, commands exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tallyport::aggregate::Dropped;
use tallyport::config::{PUBLISHER_SETTINGS, SETTINGS, SettingKind};
use tallyport::statsd::Rejected;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let folders =
        ["", "docs", "docs/reference", "docs/runtimes", "docs/adr", "fuzz", "testdata", "testdata/dcos"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap());
    let pages: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The anchors of a page: its headings, spelled as Git forges do.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| line.trim_start_matches('#').trim());
    headings.map(|heading| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    })
}

#[test]
fn every_link_of_every_page_leads_to_a_file() {
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.starts_with("http") {
                let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
                assert!(target.exists(), "{}: {link}", page.display());
                assert!(
                    anchor.is_empty() || anchors(&read(&target)).any(|known| known == anchor),
                    "{}: {link}",
                    page.display()
                );
            }
        }
    }
}

#[test]
fn every_decision_is_listed() {
    let list = read("docs/adr/README.md");
    for entry in std::fs::read_dir(root().join("docs/adr")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || list.contains(&format!("({name})")), "{name}");
    }
}

#[test]
fn every_code_and_every_reason_has_its_line() {
    let (statsd, accounting) = (read("docs/reference/statsd.md"), read("docs/reference/accounting.md"));
    for code in Rejected::ALL {
        assert!(statsd.contains(&format!("`{}`", code.as_str())), "{}", code.as_str());
    }
    for reason in Dropped::ALL {
        assert!(accounting.contains(&format!("`{}`", reason.as_str())), "{}", reason.as_str());
    }
}

/// Text between backticks, and the lines of code blocks.
fn code(text: &str) -> Vec<&str> {
    let mut code = Vec::new();
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 1 {
            code.extend(part.lines().map(str::trim));
        } else {
            code.extend(part.split('`').skip(1).step_by(2));
        }
    }
    code
}

#[test]
fn every_command_that_pages_name_is_there() {
    let makefile = read("Makefile");
    let pages: Vec<_> = pages().iter().map(read).collect();
    let words = |after: &str| -> Vec<String> {
        let named = pages.iter().flat_map(|text| code(text)).filter_map(|line| line.strip_prefix(after));
        let word =
            |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '-').next().unwrap().to_owned();
        named.map(word).collect()
    };
    let targets = words("make ");
    assert!(targets.len() > 8, "{targets:?}");
    for target in targets {
        assert!(makefile.contains(&format!("\n{target}: ##")), "make {target}");
    }
    for command in words("tallyport ").into_iter().chain(words("target/release/tallyport ")) {
        let ran = crate::cli::tallyport(&["help", &command]);
        assert_eq!(ran.code, 0, "tallyport {command}: {}", ran.err);
    }
}

#[test]
fn every_command_of_the_book_prints_what_it_says() {
    let there = crate::tools::network_namespaces()
        .and_then(|()| crate::tools::program("curl", "scripts/setup containers"));
    if there.is_none() {
        return;
    }
    let binaries = Path::new(env!("CARGO_BIN_EXE_tallyport")).parent().unwrap();
    let mut check = std::process::Command::new("python3");
    let ran =
        check.arg("scripts/docs-check").arg("--binaries").arg(binaries).current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(said.lines().count() >= 3, "{said}");
}

/// The blocks of a page in this language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let start = format!("```{language}\n");
    text.split(start.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_configuration_of_a_publisher_is_accepted_as_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let secrets = directory.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let file = directory.path().join("agent.toml");
    let mut checked = 0;
    for page in ["docs/backends.md", "docs/publish.md"] {
        let text = read(page);
        for block in blocks(&text, "toml") {
            let named =
                block.split("_file = \"/etc/tallyport/").skip(1).map(|rest| rest.split('"').next().unwrap());
            for name in named {
                let secret = secrets.join(name);
                std::fs::write(&secret, "secret\n").unwrap();
                std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                    .unwrap();
            }
            std::fs::write(&file, block.replace("/etc/tallyport", secrets.to_str().unwrap())).unwrap();
            let ran = crate::cli::tallyport(&["config", "check", "--config", file.to_str().unwrap()]);
            // A type that cannot be delivered yet is refused for that alone.
            let mut mistakes = ran.err.lines().filter(|line| line.contains(": publish."));
            let unsupported = mistakes.next().is_some_and(|it| it.contains("is not supported yet"))
                && mistakes.next().is_none();
            assert!(ran.code == 0 || unsupported, "{page}:\n{block}\n{}", ran.err);
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}

#[test]
fn the_fuzzer_of_configurations_knows_every_setting_and_its_words() {
    let text = read("fuzz/dictionaries/config.dict");
    let known: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"')).collect();
    for setting in SETTINGS {
        assert!(known.contains(setting.key), "{}", setting.key);
        if let Some((section, _)) = setting.key.split_once('.') {
            assert!(
                known.contains(section) && known.contains(format!("[{section}]\\x0a").as_str()),
                "{section}"
            );
        }
        if let SettingKind::OneOf(words) | SettingKind::Words(words) = setting.kind {
            words.iter().for_each(|word| assert!(known.contains(word), "{word} of {}", setting.key));
        }
    }
    assert!(known.contains("[publish.a]\\x0a"));
    for setting in PUBLISHER_SETTINGS {
        assert!(known.contains(setting.key), "{}", setting.key);
        if let SettingKind::OneOf(words) = setting.kind {
            words.iter().for_each(|word| assert!(known.contains(word), "{word} of {}", setting.key));
        }
    }
    let sections: BTreeSet<&str> = SETTINGS.iter().filter_map(|it| Some(it.key.split_once('.')?.0)).collect();
    for word in &known {
        let is_setting = word.split_once('.').is_some_and(|(section, _)| sections.contains(section));
        assert!(!is_setting || SETTINGS.iter().any(|it| it.key == *word), "{word} is no setting");
    }
}
