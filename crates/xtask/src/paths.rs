//! Where things are in the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the repository and the places below it.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Finds the repository this binary was built from.
    pub(crate) fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here
            .ancestors()
            .nth(2)
            .with_context(|| format!("{} is not inside the repository", here.display()))?;
        Ok(Self { root: root.into() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Everything `setup` installs or remembers, except `node_modules`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join(".tools")
    }

    /// A tool that `cargo install` put into [`Self::tools`].
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.tools().join("bin").join(name)
    }

    /// Output of the commands that ran, one file per command.
    pub(crate) fn logs(&self) -> PathBuf {
        self.tools().join("logs")
    }

    pub(crate) fn wrangler(&self) -> PathBuf {
        self.root.join("wrangler")
    }

    /// A tool that `npm ci` put into `wrangler/node_modules`.
    pub(crate) fn wrangler_tool(&self, name: &str) -> PathBuf {
        self.wrangler().join("node_modules/.bin").join(name)
    }

    pub(crate) fn conformance(&self) -> PathBuf {
        self.root.join("conformance")
    }

    pub(crate) fn worker(&self) -> PathBuf {
        self.root.join("crates/worker")
    }

    pub(crate) fn contract(&self) -> PathBuf {
        self.root.join("crates/contract")
    }

    /// What `worker-build` emits: `index.js` and `index_bg.wasm`.
    pub(crate) fn worker_build(&self) -> PathBuf {
        self.worker().join("build")
    }

    /// Default place of `dev`'s durable state.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join(".state")
    }

    /// Cargo's target directory, as long as no cargo configuration file moves it.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |dir| self.root.join(dir))
    }
}
