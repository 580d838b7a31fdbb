//! Events in files.

use std::path::Path;
use std::time::{Duration, Instant};

use proto::journal::Claim;
use proto::journal::entry::Kind;
use serde_json::Value;

use crate::installation::{Installation, PATIENCE};

fn claim(scheduler: &str) -> Kind {
    Kind::Claim(Claim {
        scheduler_id: scheduler.to_owned(),
        ..Claim::default()
    })
}

/// Waits until the file has so many lines; gives the ids in them.
async fn ids(file: &Path, lines: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.lines().count() >= lines && text.ends_with('\n') {
            let event = |line| serde_json::from_str::<Value>(line).unwrap();
            let id = |line| event(line)["id"].as_str().unwrap().to_owned();
            return text.lines().map(id).collect();
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_event_is_in_the_files_also_after_the_process_died() {
    let mut installation = Installation::start().await;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("events");
    let export = format!("export: {{ folder: {:?} }}", folder.display().to_string());
    installation.write(vec![claim("a"), claim("b")]).await;
    let feedback = installation.feedback_with(&export, "");
    let current = folder.join("current.jsonl");
    assert_eq!(ids(&current, 2).await, ["0-1-0-0", "0-1-1-0"]);
    installation.write(vec![claim("c")]).await;
    ids(&current, 3).await;
    feedback.abort().await;
    installation.write(vec![claim("d")]).await;
    let feedback = installation.feedback_with(&export, "");
    let mut ids = ids(&current, 4).await;
    // What was written and not noted as written is written again.
    ids.dedup();
    assert_eq!(ids, ["0-1-0-0", "0-1-1-0", "0-2-0-0", "0-3-0-0"]);
    feedback.stop().await;
}
