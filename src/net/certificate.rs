//! The two things that a certificate is looked into for: the hash of channel binding `tls-server-end-point` (RFC 5929
//! §4.1), and its common name. Whether to believe the certificate is decided by rustls before.

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

/// Signature algorithms by the DER bytes of their object identifier, and the hash that the binding uses. MD5 and
/// SHA-1 are replaced by SHA-256, as the RFC wants. Algorithms without one hash of their own (Ed25519, RSA-PSS whose
/// hash is a parameter) are absent: there is no channel binding with them here.
static HASHES: &[(&[u8], &Algorithm)] = &[
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x04], &SHA256), // md5WithRSAEncryption
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x05], &SHA256), // sha1WithRSAEncryption
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B], &SHA256), // sha256WithRSAEncryption
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C], &SHA384), // sha384WithRSAEncryption
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0D], &SHA512), // sha512WithRSAEncryption
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x01], &SHA256),             // ecdsa-with-SHA1
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02], &SHA256),       // ecdsa-with-SHA256
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03], &SHA384),       // ecdsa-with-SHA384
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x04], &SHA512),       // ecdsa-with-SHA512
];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The value of the first DER element of `input`, if it has this tag, and what follows it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7F);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let (bytes, rest) = rest.split_at(count);
        (bytes.iter().fold(0, |length, &byte| (length << 8) | usize::from(byte)), rest)
    };
    (found == tag && length <= rest.len()).then(|| rest.split_at(length))
}

/// The binding hash of a certificate; `None` if its signature algorithm is not one with a hash of its own.
pub(super) fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (body, _) = element(certificate, SEQUENCE)?;
    let (_to_be_signed, rest) = element(body, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (identifier, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    let (_, hash) = HASHES.iter().find(|(known, _)| *known == identifier)?;
    Some(digest(hash, certificate).as_ref().to_vec())
}

/// The first common name of the subject; `None` if there is none, or one that holds a NUL (CVE-2009-4034).
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    const UTF8: u8 = 0x0C;
    const PRINTABLE: u8 = 0x13;
    const IA5: u8 = 0x16;
    let (body, _) = element(certificate, SEQUENCE)?;
    let (mut fields, _) = element(body, SEQUENCE)?;
    // [0] version, which version 1 leaves out.
    if let Some((_, rest)) = element(fields, 0xA0) {
        fields = rest;
    }
    // Serial number, signature algorithm, issuer, validity.
    for tag in [0x02, SEQUENCE, SEQUENCE, SEQUENCE] {
        fields = element(fields, tag)?.1;
    }
    let (mut subject, _) = element(fields, SEQUENCE)?;
    while !subject.is_empty() {
        let (set, rest) = element(subject, 0x31)?;
        subject = rest;
        let (pair, _) = element(set, SEQUENCE)?;
        let (name, value) = element(pair, OBJECT_IDENTIFIER)?;
        if name == COMMON_NAME {
            let (text, _) = [UTF8, PRINTABLE, IA5].into_iter().find_map(|tag| element(value, tag))?;
            return (!text.contains(&0)).then(|| String::from_utf8(text.to_vec()).ok())?;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r22_binding_hash_follows_the_signature_algorithm() {
        let pair = |algorithm| {
            let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
            let certificate = rcgen::CertificateParams::new(vec!["a".into()]).expect("a name").self_signed(&key);
            certificate.expect("a certificate").der().to_vec()
        };
        let der = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(end_point_hash(&der).expect("a hash"), digest(&SHA256, &der).as_ref());
        let der = pair(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(end_point_hash(&der).expect("a hash"), digest(&SHA384, &der).as_ref());
        assert_eq!(end_point_hash(&pair(&rcgen::PKCS_ED25519)), None, "Ed25519 has no hash of its own");
    }

    fn named(names: &[(rcgen::DnType, &str)]) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["a".into()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn r22_common_name_is_the_subjects() {
        let organization = (rcgen::DnType::OrganizationName, "herd");
        let der = named(&[organization.clone(), (rcgen::DnType::CommonName, "alïce")]);
        assert_eq!(common_name(&der).as_deref(), Some("alïce"));
        for end in 0..der.len() {
            assert!(common_name(&der[..end]).is_none(), "cut at {end}");
        }
        assert_eq!(common_name(&named(&[organization])), None);
        assert_eq!(common_name(&named(&[(rcgen::DnType::CommonName, "alice\0.example.org")])), None);
    }

    #[test]
    fn r22_binding_of_garbage_is_none() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(vec!["a".into()]).expect("a name").self_signed(&key);
        let der = certificate.expect("a certificate").der().to_vec();
        for end in 0..der.len() {
            assert_eq!(end_point_hash(&der[..end]), None, "cut at {end}");
        }
        assert_eq!(end_point_hash(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF, 0x00]), None);
    }
}
