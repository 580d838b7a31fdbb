//! The dialogues of `tests/dialogs`: what clients say, and what the real ingress must answer.

pub mod client;
mod envelope;
mod installation;
mod scanned;
mod script;
mod stage;
mod tokens;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use script::{Action, Script};
use stage::Stage;

/// Files of a folder below `tests/dialogs`, by name.
fn files(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("dialogs")
        .join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("{folder:?}"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "dialog")
        })
        .collect();
    files.sort();
    Ok(files)
}

/// Plays one file. What is wrong is told with the line of the file.
async fn play(stage: &mut Stage, file: &Path) -> Result<()> {
    let script = Script::read(file)?;
    stage.begin_dialogue();
    for step in &script.steps {
        for number in 0..step.times {
            stage
                .play(&step.action, number)
                .await
                .with_context(|| format!("{}:{}: {}", file.display(), step.line, step.text))?;
        }
    }
    stage
        .end_dialogue()
        .await
        .with_context(|| format!("{}: at the end", file.display()))
}

fn report(failures: Vec<anyhow::Error>) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = failures
        .iter()
        .map(|failure| format!("{failure:#}"))
        .collect();
    bail!("{} dialogues failed:\n{}", texts.len(), texts.join("\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialogue_goes_as_written() -> Result<()> {
    let mut stage = Stage::set("dialogs").await?;
    let mut failures = Vec::new();
    for file in files("")? {
        if let Err(failure) = play(&mut stage, &file).await {
            failures.push(failure);
        }
    }
    report(failures)?;
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialogue_about_storage_goes_as_written() -> Result<()> {
    let mut failures = Vec::new();
    for file in files("storage")? {
        let name = file
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or("storage");
        let mut stage = Stage::set(&format!("dialogs-{name}")).await?;
        match play(&mut stage, &file).await {
            Ok(()) => stage.strike().await?,
            Err(failure) => failures.push(failure),
        }
    }
    report(failures)
}

#[test]
fn every_dialogue_can_be_read() -> Result<()> {
    for folder in ["", "storage"] {
        for file in files(folder)? {
            let script = Script::read(&file)?;
            let connects = script
                .steps
                .iter()
                .any(|step| matches!(step.action, Action::Connect(_)));
            assert!(connects, "{file:?} connects to nothing");
        }
    }
    Ok(())
}
