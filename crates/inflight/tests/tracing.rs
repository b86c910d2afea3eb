//! What a subscriber is told of operations, with the feature `tracing`.

mod support;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use inflight::OpenOptions;
use support::{bytes, on_each_disk};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// All that was said of one span: its fields, and whether it is over.
#[derive(Debug, Default, Clone)]
struct Seen {
    name: &'static str,
    parent: Option<u64>,
    fields: HashMap<&'static str, String>,
    ended: bool,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

#[derive(Default, Clone)]
struct Listener {
    spans: Arc<Mutex<Vec<Seen>>>,
    entered: Arc<Mutex<Vec<u64>>>,
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut spans = self.spans.lock().unwrap();
        let parent = self.entered.lock().unwrap().last().copied();
        let name = attributes.metadata().name();
        let mut seen = Seen { name, parent, ..Seen::default() };
        attributes.record(&mut seen);
        spans.push(seen);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(&mut self.spans.lock().unwrap()[span.into_u64() as usize - 1]);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, span: &Id) {
        self.entered.lock().unwrap().push(span.into_u64());
    }

    fn exit(&self, _: &Id) {
        self.entered.lock().unwrap().pop();
    }

    fn try_close(&self, span: Id) -> bool {
        self.spans.lock().unwrap()[span.into_u64() as usize - 1].ended = true;
        true
    }
}

#[test]
fn operations_are_spans_inside_those_of_their_callers() {
    on_each_disk(|engine, directory| {
        let listener = Listener::default();
        tracing::subscriber::with_default(listener.clone(), || {
            engine.block_on(async {
                let path = directory.join("file");
                let options = OpenOptions::creating(0o600).read_write();
                let file = engine.open(&path, options).await.unwrap();
                let span = tracing::info_span!("caller").entered();
                let writing = file.write_all(bytes(engine, b"some bytes"), 0);
                let buffer = writing.await.unwrap();
                drop(span);
                drop(file.read(buffer, 100, 4).await.unwrap());
                engine.metadata(directory.join("none"), true).await.unwrap_err();
            });
        });
        let spans = listener.spans.lock().unwrap().clone();
        let of = |kind: &str| {
            let kind = format!("{kind:?}");
            let find = |seen: &&Seen| seen.fields.get("kind") == Some(&kind);
            spans.iter().find(find).unwrap_or_else(|| panic!("no {kind} in {spans:?}")).clone()
        };
        let (write, read, look) = (of("write"), of("read"), of("look at"));
        let parent = write.parent.map(|parent| spans[parent as usize - 1].name);
        assert_eq!(parent, Some("caller"));
        assert_eq!(read.parent, None);
        assert!(write.ended && read.ended && look.ended);
        assert!(write.fields["path"].ends_with("/file"), "{write:?}");
        assert_eq!(read.fields["offset"], "4");
        assert_eq!(read.fields.get("error"), None);
        assert!(read.fields["result"].parse::<u64>().unwrap() >= 1);
        assert!(look.fields["error"].contains("No such file"), "{look:?}");
        assert_eq!(look.fields.get("result"), None);
    });
}
