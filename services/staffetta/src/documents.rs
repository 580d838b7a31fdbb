//! Resource documents from files, folders and standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The documents of all files as one text.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    /// For `config::Snapshot`.
    pub(crate) text: String,
    /// Each file and the line of the text on which it begins, from 1.
    files: Vec<(String, u32)>,
}

impl Documents {
    /// Reads files in the order given; a folder stands for its `*.yaml` and `*.yml` by name, `-` for
    /// standard input.
    pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut documents = Self::default();
        for path in paths {
            if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .context("standard input")?;
                documents.add("standard input", &text);
            } else if path.is_dir() {
                for file in yaml_files(path)? {
                    documents.add_file(&file)?;
                }
            } else {
                documents.add_file(path)?;
            }
        }
        Ok(documents)
    }

    fn add_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
        self.add(&name, &text);
        Ok(())
    }

    fn add(&mut self, name: &str, text: &str) {
        if !self.text.is_empty() {
            if !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            self.text.push_str("---\n");
        }
        let lines = self.text.bytes().filter(|byte| *byte == b'\n').count();
        let first = u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1);
        self.files.push((name.to_owned(), first));
        self.text.push_str(text);
    }

    /// The message of a problem with the line of the file that it is in, instead of that of the text.
    pub(crate) fn locate(&self, problem: &str) -> String {
        for (before, after) in [(" (line ", ')'), ("line ", ':')] {
            let Some((head, tail)) = problem.split_once(before) else {
                continue;
            };
            let Some((number, rest)) = tail.split_once(after) else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            let Some((name, line)) = self.file_of(number) else {
                continue;
            };
            return if after == ')' {
                format!("{head} ({name} line {line}){rest}")
            } else {
                format!("{head}{name} line {line}:{rest}")
            };
        }
        problem.to_owned()
    }

    fn file_of(&self, line: u32) -> Option<(&str, u32)> {
        let (name, first) = self.files.iter().rev().find(|(_, first)| *first <= line)?;
        Some((name, line - first + 1))
    }
}

/// The `*.yaml` and `*.yml` of a folder, by name.
pub(crate) fn yaml_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_file_and_its_line() {
        let mut documents = Documents::default();
        documents.add("a.yaml", "one: 1\ntwo: 2");
        documents.add("b.yaml", "three: 3\nfour: 4\n");
        assert_eq!(documents.text, "one: 1\ntwo: 2\n---\nthree: 3\nfour: 4\n");
        for (problem, expected) in [
            ("doc 1 x (line 2): bad", "doc 1 x (a.yaml line 2): bad"),
            ("doc 2 x (line 5): bad", "doc 2 x (b.yaml line 2): bad"),
            (
                "line 4: column 3: not valid YAML",
                "b.yaml line 1: column 3: not valid YAML",
            ),
            (
                "Route/default spec.pool: none",
                "Route/default spec.pool: none",
            ),
        ] {
            assert_eq!(documents.locate(problem), expected);
        }
    }

    #[test]
    fn a_folder_stands_for_its_yaml_files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.txt"] {
            std::fs::write(folder.path().join(name), format!("# {name}\n")).unwrap();
        }
        let documents = Documents::read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(documents.text, "# a.yml\n---\n# b.yaml\n");
        let absent = Documents::read(&[folder.path().join("absent.yaml")]).unwrap_err();
        assert!(format!("{absent:#}").contains("absent.yaml: No such file"));
    }
}
