//! [`Segments`] in memory: the naive implementation that the others are compared with.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::rc::Rc;

use super::{Listed, Outcome, Segments, Stored, Unavailable};
use crate::log::Blob;

type Objects = BTreeMap<String, (Vec<u8>, Stored)>;

/// Objects by name. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct MemorySegments {
    objects: Rc<RefCell<Objects>>,
}

impl MemorySegments {
    /// Number of objects.
    #[must_use]
    pub fn count(&self) -> usize {
        self.objects.borrow().len()
    }

    /// Changes an object behind everybody's back, if it is there.
    pub fn damage(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        if let Some((bytes, _)) = self.objects.borrow_mut().get_mut(name) {
            damage(bytes);
        }
    }
}

impl Segments for MemorySegments {
    type Bytes = Vec<u8>;

    async fn put(&self, name: &str, parts: Vec<Vec<u8>>, stored: Stored) -> Outcome {
        let bytes = parts.concat();
        if bytes.len() as u64 != stored.size {
            return Outcome::Failed("the object has not the size that was announced".into());
        }
        let mut objects = self.objects.borrow_mut();
        let (_, known) = objects.entry(name.to_owned()).or_insert((bytes, stored));
        if *known == stored {
            Outcome::Done
        } else {
            Outcome::Failed("another object has this name".into())
        }
    }

    async fn head(&self, name: &str) -> Result<Option<Stored>, Unavailable> {
        Ok(self.objects.borrow().get(name).map(|(_, stored)| *stored))
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, Unavailable> {
        Ok(self.objects.borrow().get(name).map(|(bytes, _)| Blob::slice(bytes, range)))
    }

    async fn delete(&self, names: &[String]) -> Outcome {
        for name in names {
            self.objects.borrow_mut().remove(name);
        }
        Outcome::Done
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Listed>, Unavailable> {
        let objects = self.objects.borrow();
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let names = objects.range::<str, _>((from, Bound::Unbounded));
        let listed = names.take_while(|(name, _)| name.starts_with(prefix)).take(limit as usize);
        Ok(listed
            .map(|(name, (_, stored))| Listed { name: name.clone(), size: stored.size })
            .collect())
    }
}
