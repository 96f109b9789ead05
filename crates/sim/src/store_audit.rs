//! The audit of the object store: what is in it, what the objects' disks say of it, and whether
//! the two agree. It runs after every step that changed either.

use std::collections::BTreeSet;

use engine::log::{Key, Log, SegmentRow};
use engine::rotate::stream_of;

use crate::object::Object;
use crate::oracle::{KEY_END, sound};
use crate::violation::{Check, ensure};
use crate::world::World;

/// What an object's disk says of the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    /// Objects that are the stream's own, or are to become so, or are to be deleted: each of them
    /// will be deleted one day.
    answered_for: BTreeSet<String>,
    /// Those that are to be deleted.
    marked: BTreeSet<String>,
    /// Rows of the life that is or may become readable, by their bounds.
    needed: Vec<(String, u64)>,
}

impl World {
    /// Checks the store against all disks, if anything changed since the last time.
    pub(crate) fn audit_store(&mut self) -> Check {
        let mut changed = self.store_audited_at != Some(self.store.changes());
        for object in &mut self.objects {
            let commits = Some(object.counters.commits());
            if object.claimed_at != commits {
                object.claimed_at = commits;
                object.claims = object.read_claims()?;
                changed = true;
            }
        }
        if !changed {
            return Ok(());
        }
        self.store_audited_at = Some(self.store.changes());
        for name in self.store.names() {
            let answered =
                self.objects.iter().any(|object| object.claims.answered_for.contains(&name));
            ensure!(answered, Garbage, "nobody will delete {name}");
        }
        for object in &self.objects {
            for (name, size) in &object.claims.needed {
                let stored = self.store.head(name).map(|stored| stored.size);
                let whole = stored == Some(*size);
                ensure!(whole, Shared, "{} needs {name} of {size}: {stored:?}", object.name);
                let doomed = self.objects.iter().any(|other| other.claims.marked.contains(name));
                ensure!(!doomed, Shared, "{} needs {name}, which is marked", object.name);
            }
        }
        Ok(())
    }
}

impl Object {
    fn read_claims(&self) -> Check<Claims> {
        let mut claims = Claims::default();
        let rows = sound(self.disk.segments(Key(0)..KEY_END, u32::MAX))?;
        let current = self.model.current.as_ref();
        for SegmentRow { key, name, own, size, .. } in rows {
            ensure!(!own || self.made(&name), Garbage, "{} owns {name}", self.name);
            if current.is_some_and(|life| key.0 >= life.base) {
                claims.needed.push((name.clone(), size));
            }
            if own {
                let once = claims.answered_for.insert(name.clone());
                ensure!(once, Garbage, "{name} is twice in one log");
            }
        }
        if let Some(life) = current {
            let rotation = sound(self.disk.rotation(life.generation))?;
            if let Some(intent) = rotation.and_then(|rotation| rotation.intent) {
                ensure!(self.made(&intent.name), Garbage, "{} makes {}", self.name, intent.name);
                let once = claims.answered_for.insert(intent.name);
                ensure!(once, Garbage, "an upload has the name of a segment");
            }
        }
        for marker in sound(self.disk.markers(u32::MAX))? {
            ensure!(self.made(&marker.name), Garbage, "{} deletes {}", self.name, marker.name);
            claims.answered_for.insert(marker.name.clone());
            claims.marked.insert(marker.name);
        }
        Ok(claims)
    }

    /// Whether an object of the store has this stream's name.
    fn made(&self, name: &str) -> bool {
        stream_of(name) == Some(&*self.name)
    }
}
