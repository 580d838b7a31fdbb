//! The client of the power-cut test: loads the stores as the relay does, through the same crate, keeps a
//! ledger of what was acknowledged, and checks it afterwards. Started by `tests/powercut/run.py`.
//!
//! `powercut-load prepare|load|verify --url … --monitor … --durability strict|relaxed [--ledger FILE] [--seed N]`

mod ledger;
mod load;
mod prepare;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use spool::{Durability, Options, Stores};

/// As many as an installation has by default.
pub const PARTITIONS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

struct Arguments {
    url: String,
    monitor: String,
    durability: Durability,
    ledger: PathBuf,
    seed: u64,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().context("a command is missing")?;
    let arguments = read(words)?;
    match command.as_str() {
        "prepare" => prepare::run(&connect(&arguments).await?).await,
        "load" => {
            let stores = open(&arguments).await?;
            println!(
                "{}",
                load::run(stores, &arguments.ledger, arguments.seed).await?
            );
            Ok(())
        }
        "verify" => {
            let stores = open(&arguments).await?;
            println!("{}", verify::run(&stores, &arguments.ledger).await?);
            Ok(())
        }
        other => bail!("unknown command {other}"),
    }
}

fn read(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        url: String::new(),
        monitor: String::new(),
        durability: Durability::Strict,
        ledger: PathBuf::new(),
        seed: 0,
    };
    while let Some(name) = words.next() {
        let value = words
            .next()
            .with_context(|| format!("{name} has no value"))?;
        match name.as_str() {
            "--url" => arguments.url = value,
            "--monitor" => arguments.monitor = value,
            "--durability" if value == "strict" => arguments.durability = Durability::Strict,
            "--durability" if value == "relaxed" => arguments.durability = Durability::Relaxed,
            "--ledger" => arguments.ledger = value.into(),
            "--seed" => arguments.seed = value.parse()?,
            _ => bail!("unknown argument {name} {value}"),
        }
    }
    Ok(arguments)
}

async fn connect(arguments: &Arguments) -> Result<Stores> {
    let options = Options {
        url: arguments.url.clone(),
        access: spool::Access::default(),
        monitor: Some(arguments.monitor.clone()),
        name: "powercut".to_owned(),
        durability: arguments.durability,
    };
    let begun = tokio::time::Instant::now();
    loop {
        match Stores::connect(&options).await {
            Ok(stores) => return Ok(stores),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Opens them as every service does at its start, with the check that the server keeps what it acknowledges.
async fn open(arguments: &Arguments) -> Result<Stores> {
    let stores = connect(arguments).await?;
    let opened = stores.open().await?;
    if opened.partitions != PARTITIONS {
        bail!("{} partitions instead of {PARTITIONS}", opened.partitions);
    }
    Ok(stores)
}
