//! Compiles the .proto files with protox: no protoc is needed to build.

const NOUNS: [&str; 12] = [
    "envelope",
    "operation",
    "standing",
    "watch",
    "event",
    "inbound",
    "transcript",
    "spool",
    "journal",
    "dispatch",
    "signer",
    "admin",
];

fn main() {
    let files: Vec<String> = NOUNS
        .iter()
        .map(|noun| format!("staffetta/{noun}/v1/{noun}.proto"))
        .collect();
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."]).expect("the .proto files compile");
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .bytes(".")
        .compile_fds(descriptors)
        .expect("code generation succeeds");
}
