//! TLS settings made ready: certificates read, verifiers built, for our clients' side and for the servers' side. Owned
//! by whoever reads the configuration; a reload builds new ones. Always the `ring` provider, named explicitly.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::certificate::end_point_hash;

/// The ALPN name of PostgreSQL's protocol; required where TLS starts without an SSLRequest.
pub const ALPN: &[u8] = b"postgresql";

/// How much TLS is asked of a server, as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server can; nothing is verified.
    #[default]
    Prefer,
    /// Always; verified like `VerifyCa` if a CA file is given, as libpq does.
    Require,
    /// Always, by a certificate that the CA file's authorities signed.
    VerifyCa,
    /// The same, and the certificate names the host.
    VerifyFull,
}

impl FromStr for SslMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return Err(format!("\"{text}\" is none of disable, prefer, require, verify-ca, verify-full")),
        })
    }
}

/// Why TLS settings cannot be used. The text names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub struct TlsError {
    /// The file in question.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl TlsError {
    fn new(file: &Path, reason: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), reason: reason.to_string() }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(TlsError::new(file, "holds no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError::new(file, error)),
    }
}

fn read_roots(file: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let certificates = read_certificates(file)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| TlsError::new(file, error))?;
    }
    Ok((roots, certificates))
}

/// What our own clients meet.
pub struct ServerTls {
    config: Arc<ServerConfig>,
    end_point: Option<Arc<[u8]>>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

impl ServerTls {
    /// Reads certificate chain and key (PEM). With `client_ca`, clients may show a certificate; one that those
    /// authorities did not sign is refused.
    pub fn new(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let chain = read_certificates(cert)?;
        let end_point = chain.first().and_then(|leaf| end_point_hash(leaf)).map(Into::into);
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::new(key, error))?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(cert, error))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let (roots, _) = read_roots(file)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsError::new(file, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, secret).map_err(|error| TlsError::new(cert, error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { config: Arc::new(config), end_point })
    }

    pub(super) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    pub(super) fn end_point(&self) -> Option<Arc<[u8]>> {
        self.end_point.clone()
    }
}

/// What we ask of one server.
pub struct ClientTls {
    mode: SslMode,
    config: Arc<ClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({:?})", self.mode)
    }
}

impl ClientTls {
    /// Settings for one server. `ca`: the authorities (PEM) that may have signed its certificate; needed by the
    /// `verify-` modes. The name of the host is compared with subjectAltName only, never with the common name.
    pub fn new(mode: SslMode, ca: Option<&Path>) -> Result<Self, TlsError> {
        let verify = match (mode, ca) {
            (SslMode::VerifyCa | SslMode::VerifyFull, None) => {
                return Err(TlsError::new(Path::new("ca"), "sslmode verify-ca and verify-full need a ca file"));
            }
            (SslMode::Disable | SslMode::Prefer, _) | (SslMode::Require, None) => None,
            (_, Some(file)) => {
                let (roots, pinned) = read_roots(file)?;
                let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                    .build()
                    .map_err(|error| TlsError::new(file, error))?;
                Some(Verified { inner, pinned, check_name: mode == SslMode::VerifyFull })
            }
        };
        let provider = provider();
        let verifier = Arc::new(NodeVerifier { provider: Arc::clone(&provider), verify });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(Path::new("ca"), error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { mode, config: Arc::new(config) })
    }

    /// Plain text only.
    pub fn disabled() -> Self {
        Self::new(SslMode::Disable, None).expect("without files nothing can be wrong")
    }

    /// The mode that it was made for.
    pub fn mode(&self) -> SslMode {
        self.mode
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

/// libpq's three degrees of trust. Signatures of the handshake are verified in each of them.
#[derive(Debug)]
struct NodeVerifier {
    provider: Arc<CryptoProvider>,
    /// None: any certificate will do (`prefer`, `require` without a CA).
    verify: Option<Verified>,
}

#[derive(Debug)]
struct Verified {
    inner: Arc<WebPkiServerVerifier>,
    /// The CA file's certificates: a server that shows one of them itself is trusted, as OpenSSL does.
    pinned: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl Verified {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.contains(leaf) {
            if self.check_name {
                verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        use CertificateError::{NotValidForName, NotValidForNameContext};
        match self.inner.verify_server_cert(leaf, intermediates, name, &[], now) {
            // The chain is built before the name is looked at, so this error says that the chain is good.
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
                if !self.check_name =>
            {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.verify {
            None => Ok(ServerCertVerified::assertion()),
            Some(verified) => verified.check(leaf, intermediates, name, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
