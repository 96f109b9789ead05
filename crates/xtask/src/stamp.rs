//! Stamps: "this was made from exactly these inputs", so that work is skipped when it is done.
//!
//! A stamp is a small file in `.tools`; its text is whatever identifies the inputs. A missing,
//! unreadable or different stamp means that the work is done again, so a stamp is never wrong for
//! longer than one run.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use crate::paths::Paths;

/// One stamp file.
#[derive(Debug)]
pub(crate) struct Stamp {
    path: PathBuf,
}

impl Stamp {
    pub(crate) fn new(paths: &Paths, name: &str) -> Self {
        Self { path: paths.tools().join(format!("{name}.stamp")) }
    }

    pub(crate) fn matches(&self, inputs: &str) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text == inputs)
    }

    pub(crate) fn write(&self, inputs: &str) -> Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&self.path, inputs)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Forgets the work; call it before redoing it, so that half of it never counts.
    pub(crate) fn clear(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Hash of the files' bytes, as hexadecimal digits.
pub(crate) fn hash_of_contents(files: &[PathBuf]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Hash of names, sizes and modification times of files and of everything below directories.
/// What does not exist counts as absent.
pub(crate) fn hash_of_metadata(roots: &[PathBuf]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for root in roots {
        hash_tree(root, &mut hasher)?;
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn hash_tree(path: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    path.hash(hasher);
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(());
    };
    if metadata.is_file() {
        metadata.len().hash(hasher);
        metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos().hash(hasher);
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        entries.push(entry?.path());
    }
    entries.sort();
    entries.iter().try_for_each(|entry| hash_tree(entry, hasher))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_changes_both_hashes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        let roots = [directory.path().to_path_buf()];
        fs::write(&file, "one").unwrap();
        let contents = hash_of_contents(std::slice::from_ref(&file)).unwrap();
        let metadata = hash_of_metadata(&roots).unwrap();
        assert_eq!(metadata, hash_of_metadata(&roots).unwrap());

        fs::write(&file, "other").unwrap();
        assert_ne!(contents, hash_of_contents(&[file]).unwrap());
        assert_ne!(metadata, hash_of_metadata(&roots).unwrap());
    }

    #[test]
    fn a_missing_file_is_an_input_too() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        let absent = hash_of_metadata(std::slice::from_ref(&file)).unwrap();
        fs::write(&file, "").unwrap();
        assert_ne!(absent, hash_of_metadata(&[file]).unwrap());
    }
}
