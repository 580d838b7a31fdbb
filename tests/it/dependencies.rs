//! The rules that hold the tree up: who may depend on whom, and on what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{
    CargoOpt, Dependency, DependencyKind, Metadata, MetadataCommand, Package, PackageId,
};

/// Decide, and neither wait nor talk: no tokio, no sockets. A crate may depend on those before it.
const PURE: &[&str] = &[
    "mail",
    "smtp",
    "srs",
    "message",
    "sts",
    "tlsrpt",
    "multibuffer",
    "dkim",
    "dsn",
    "scan",
    "config",
    "preflight",
    "bearer",
    "classify",
    "bounce",
    "suppress",
    "egress",
    "journal",
    "queue",
];
/// Each is the only user of a foreign client; they do not know each other.
const ADAPTERS: &[&str] = &["dns", "limits", "spool"];
/// What a process needs around the service in it; a crate may depend on those before it, and `records` on `dns`
/// and the messages of `proto`.
const AROUND: &[&str] = &["telemetry", "runtime", "records"];
const SERVICES: &[&str] = &["ingress", "signer", "scheduler", "sender", "feedback"];
/// May depend on everything.
const TOP: &[&str] = &["staffetta", "tests"];
/// Depends on nothing of ours, so that the tests of every crate can use it; only tests do.
const KIT: &str = "kit";

/// Foreign crates that the pure ones may use: data structures, encodings, arithmetic.
const STD_LIKE: &[&str] = &[
    "aho-corasick",
    "aws-lc-rs",
    "base64",
    "bytes",
    "crc32c",
    "flate2",
    "hashbrown",
    "idna",
    "ipnet",
    "jiff",
    "mail-parser",
    "memchr",
    "prost",
    "pulp",
    "regex",
    "rustls-pki-types",
    "serde",
    "serde-saphyr",
    "serde_json",
    "smallvec",
    "thiserror",
    "uuid",
    "psl",
    "zeroize",
];

/// (foreign crate, its only user): replacing one means editing one crate.
const OWNERS: &[(&str, &str)] = &[
    ("async-nats", "spool"),
    ("redis", "limits"),
    ("hickory-resolver", "dns"),
    ("mail-parser", "message"),
    ("mail-auth", "records"),
    ("prometheus", "telemetry"),
    ("axum", "runtime"),
    ("hyper", "runtime"),
    ("regex", "config"),
    ("aho-corasick", "config"),
    ("pulp", "multibuffer"),
];

/// Not in our tree, however deep. Two TLS providers in one process panic at the first handshake;
/// the rest would be a second library for what we have.
const BANNED: &[&str] = &[
    "ring",
    "openssl",
    "openssl-sys",
    "native-tls",
    "chrono",
    "serde_yaml",
];

/// Licences that let the whole be given away under Apache-2.0.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &[
    "common", "utils", "util", "helpers", "helper", "misc", "manager", "handler", "handlers",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .features(CargoOpt::SomeFeatures(Vec::new()))
        .other_options([
            "--filter-platform".to_owned(),
            "x86_64-unknown-linux-gnu".to_owned(),
        ])
        .exec()
        .expect("cargo metadata runs")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace")
        .to_path_buf()
}

fn ours(metadata: &Metadata) -> BTreeMap<&str, &Package> {
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| (package.name.as_str(), package))
        .collect()
}

/// What the package depends on when it is built, tests aside.
fn dependencies(package: &Package) -> impl Iterator<Item = &Dependency> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
}

/// Our crates that this one may depend on.
fn allowed(name: &str) -> BTreeSet<&'static str> {
    let before = |list: &[&'static str]| -> Vec<&'static str> {
        list.iter()
            .copied()
            .take_while(|other| *other != name)
            .collect()
    };
    let libraries = || {
        PURE.iter()
            .chain(ADAPTERS)
            .chain(AROUND)
            .copied()
            .chain(["proto"])
    };
    if name == "proto" || name == KIT {
        BTreeSet::new()
    } else if PURE.contains(&name) {
        before(PURE).into_iter().chain(["proto"]).collect()
    } else if ADAPTERS.contains(&name) {
        PURE.iter().copied().chain(["proto"]).collect()
    } else if AROUND.contains(&name) {
        let more: &[&str] = match name {
            "records" => &["dns", "proto"],
            _ => &[],
        };
        PURE.iter()
            .copied()
            .chain(before(AROUND))
            .chain(more.iter().copied())
            .collect()
    } else if SERVICES.contains(&name) {
        libraries().collect()
    } else if name == "tests" {
        libraries()
            .chain(SERVICES.iter().copied())
            .chain([KIT])
            .collect()
    } else {
        libraries().chain(SERVICES.iter().copied()).collect()
    }
}

#[test]
fn every_crate_has_a_place_in_the_order() {
    let metadata = metadata();
    let known: BTreeSet<&str> = PURE
        .iter()
        .chain(ADAPTERS)
        .chain(AROUND)
        .chain(SERVICES)
        .chain(TOP)
        .copied()
        .chain(["proto", KIT])
        .collect();
    let found: BTreeSet<&str> = ours(&metadata).into_keys().collect();
    assert_eq!(found, known);
}

#[test]
fn arrows_between_our_crates_point_down() {
    let metadata = metadata();
    let ours = ours(&metadata);
    let mut wrong = Vec::new();
    for (name, package) in &ours {
        let allowed = allowed(name);
        for dependency in dependencies(package) {
            let target = dependency.name.as_str();
            if ours.contains_key(target) && !allowed.contains(target) {
                wrong.push(format!("{name} must not depend on {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_use_only_what_computes() {
    let metadata = metadata();
    let ours = ours(&metadata);
    let mut wrong = Vec::new();
    for name in PURE {
        for dependency in dependencies(ours[name]) {
            let target = dependency.name.as_str();
            if target == "proto" {
                if dependency.uses_default_features || !dependency.features.is_empty() {
                    wrong.push(format!(
                        "{name} takes gRPC with proto; the messages are enough"
                    ));
                }
            } else if !ours.contains_key(target) && !STD_LIKE.contains(&target) {
                wrong.push(format!("{name} is pure and must not depend on {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_pure_crate_reaches_tokio_or_a_socket() {
    let metadata = metadata();
    let names: BTreeMap<&PackageId, &str> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.as_str()))
        .collect();
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
    let nodes: BTreeMap<&PackageId, _> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let ours = ours(&metadata);
    for name in PURE {
        let mut wanted = vec![&ours[name].id];
        let mut seen = BTreeSet::new();
        while let Some(id) = wanted.pop() {
            // The features of proto are those of the whole workspace here; its own rule is above.
            if names[id] == "proto" || !seen.insert(id) {
                continue;
            }
            assert!(
                !["tokio", "mio", "socket2", "hyper"].contains(&names[id]),
                "{name} reaches {}",
                names[id]
            );
            let normal = nodes[id].deps.iter().filter(|dependency| {
                dependency
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal)
            });
            wanted.extend(normal.map(|dependency| &dependency.pkg));
        }
    }
}

#[test]
fn a_foreign_crate_has_one_owner() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for (name, package) in ours(&metadata) {
        for dependency in dependencies(package) {
            for (foreign, owner) in OWNERS {
                if dependency.name == *foreign && name != *owner {
                    wrong.push(format!("{name} uses {foreign}, which belongs to {owner}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_banned_crate_is_in_the_tree() {
    // `cargo metadata` also lists what only a feature that nobody asks for would bring.
    let arguments = [
        "tree",
        "--workspace",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(workspace())
        .output()
        .expect("cargo tree runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8_lossy(&output.stdout);
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.contains("rustls"), "{tree}");
    let found: Vec<&str> = BANNED
        .iter()
        .filter(|banned| names.contains(*banned))
        .copied()
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn every_licence_is_permissive() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let licence = package.license.as_deref().unwrap_or("none");
        if !is_permissive(licence) {
            wrong.push(format!("{} {}: {licence}", package.name, package.version));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether an SPDX expression can be satisfied with our licences. `AND` is looked at last, which
/// asks for more than a nested expression may mean, never for less.
fn is_permissive(expression: &str) -> bool {
    expression.split(" AND ").all(|all| {
        let all = all.trim_matches(['(', ')', ' ']).replace('/', " OR ");
        all.split(" OR ")
            .any(|one| LICENCES.contains(&one.trim_matches(['(', ')', ' '])))
    })
}

#[test]
fn an_expression_with_a_choice_needs_one_permissive_part_only() {
    assert!(is_permissive("MIT OR Apache-2.0"));
    assert!(is_permissive("MIT/GPL-3.0"));
    assert!(is_permissive("ISC AND (Apache-2.0 OR ISC)"));
    assert!(!is_permissive("MIT AND GPL-3.0"));
    assert!(!is_permissive("AGPL-3.0"));
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let mut wrong = Vec::new();
    let mut folders = vec![
        workspace().join("services"),
        workspace().join("proto"),
        workspace().join("tests"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of ours can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && name != "target" {
                folders.push(path.clone());
            }
            if EMPTY_NAMES.contains(&name.as_str()) {
                wrong.push(path.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
