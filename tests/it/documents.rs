//! What the documents point at is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files below a folder that end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path, end),
            false if path.to_string_lossy().ends_with(end) => vec![path],
            false => Vec::new(),
        })
        .collect()
}

/// What stands between two marks, wherever it does.
fn between<'a>(text: &'a str, begin: &'a str, end: char) -> impl Iterator<Item = &'a str> {
    text.split(begin)
        .skip(1)
        .filter_map(move |rest| Some(rest.split_once(end)?.0))
}

#[test]
fn every_test_that_a_table_names_is_there() {
    let sources = ["services", "tests"].map(|folder| root().join(folder));
    let sources: Vec<String> = sources
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let functions: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| between(source, "fn ", '('))
        .collect();
    for document in ["delivery.md", "submission.md"] {
        let text = std::fs::read_to_string(root().join("docs").join(document)).unwrap();
        let last_cells = text
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
            .filter_map(|row| Some(row.rsplit_once(" | ")?.1));
        let named: Vec<&str> = last_cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .filter(|name| name.matches('_').count() > 2)
            .collect();
        assert!(named.len() > 10, "{document} names {named:?}");
        for name in named {
            assert!(functions.contains(name), "{document} names {name}");
        }
    }
}

#[test]
fn every_file_that_a_document_links_to_is_there() {
    let mut documents = files(&root().join("docs"), ".md");
    let at_the_top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
    documents.extend(at_the_top.map(|name| root().join(name)));
    let mut links = 0;
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        for target in between(&text, "](", ')') {
            let file = target.split('#').next().unwrap();
            if !file.is_empty() && !target.contains("://") {
                links += 1;
                assert!(
                    folder.join(file).exists(),
                    "{} links to {target}",
                    document.display()
                );
            }
        }
    }
    assert!(links > 100, "{links} links");
}
