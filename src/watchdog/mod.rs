//! Several proxies of which one is active. Layer 4, control plane. Not wired yet: the address that follows the active one is all there is.

pub mod address;
