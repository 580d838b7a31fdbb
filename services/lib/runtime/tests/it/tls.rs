use runtime::bootstrap::CertificateFiles;
use runtime::tls_server_config;

#[test]
fn a_certificate_and_its_key_make_a_server_and_what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let first = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
    let second = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
    std::fs::write(path("cert.pem"), first.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), first.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("other.pem"), second.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("empty.pem"), "").unwrap();

    let files = |certificate: &str, key: &str| CertificateFiles {
        certificate: path(certificate),
        key: path(key),
    };
    let good = files("cert.pem", "key.pem");
    tls_server_config(std::slice::from_ref(&good)).unwrap();
    let says = |certificate: &str, key: &str| {
        let error = tls_server_config(&[good.clone(), files(certificate, key)]).unwrap_err();
        error
            .to_string()
            .replace(&folder.path().display().to_string(), "…")
    };
    assert!(says("absent.pem", "key.pem").starts_with("certificate …/absent.pem: "));
    assert_eq!(
        says("empty.pem", "key.pem"),
        "certificate …/empty.pem: there is no certificate in the file"
    );
    assert!(says("cert.pem", "cert.pem").starts_with("key …/cert.pem: "));
    assert!(
        says("cert.pem", "other.pem").starts_with("certificate …/cert.pem with key …/other.pem: ")
    );
}
