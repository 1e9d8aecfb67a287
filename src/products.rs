//! Optional parts of the program. Each is a cargo feature of this package, on by default
//! (`docs/adr/0065-optional-products.md`).
//!
//! A module that belongs to a product is compiled with its feature only. Where callers would need a condition of their own,
//! a file `absent.rs` with the same functions takes the module's place.

/// An optional part of the program.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Product {
    /// The archive of windows.
    Archive,
    /// The calls of the DC/OS metrics isolator, and the DC/OS metrics API.
    Dcos,
    /// The BPF guard of listeners.
    Guard,
    /// The installation into container engines.
    Install,
    /// The NRI plugin.
    Nri,
    /// The web page.
    Page,
    /// `tallyport top` and `tallyport metrics plot`.
    Top,
}

impl Product {
    /// All of them, in the order of their features' names.
    pub const ALL: [Self; 7] =
        [Self::Archive, Self::Dcos, Self::Guard, Self::Install, Self::Nri, Self::Page, Self::Top];

    /// The name of its feature.
    #[must_use]
    pub const fn feature_name(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Dcos => "dcos",
            Self::Guard => "guard",
            Self::Install => "install",
            Self::Nri => "nri",
            Self::Page => "page",
            Self::Top => "top",
        }
    }

    /// What it is; completes "built without".
    #[must_use]
    pub const fn describe_product(self) -> &'static str {
        match self {
            Self::Archive => "the archive",
            Self::Dcos => "the DC/OS calls",
            Self::Guard => "the guard",
            Self::Install => "tallyport hook",
            Self::Nri => "the NRI plugin",
            Self::Page => "the web page",
            Self::Top => "tallyport top",
        }
    }

    /// Whether this program contains it.
    #[must_use]
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::Archive => cfg!(feature = "archive"),
            Self::Dcos => cfg!(feature = "dcos"),
            Self::Guard => cfg!(feature = "guard"),
            Self::Install => cfg!(feature = "install"),
            Self::Nri => cfg!(feature = "nri"),
            Self::Page => cfg!(feature = "page"),
            Self::Top => cfg!(feature = "top"),
        }
    }

    /// Those that this program does not contain.
    pub fn list_missing() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|product| !product.is_built_in())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_of_the_package_is_a_product_and_on_by_default() {
        let manifest: toml::Table = toml::from_str(include_str!("../Cargo.toml")).unwrap();
        let features = manifest["features"].as_table().unwrap();
        let by_default: Vec<_> =
            features["default"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(by_default, Product::ALL.map(Product::feature_name));
        let mut all: Vec<_> = features.keys().map(String::as_str).filter(|name| *name != "default").collect();
        all.sort_unstable();
        assert_eq!(all, by_default);
    }
}
