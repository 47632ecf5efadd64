//! The fields of a head that go on.

use super::{Field, fields::Connection};

#[derive(Debug, Default)]
pub(super) struct Kept<'b> {
    fields: Vec<Field<'b>>,
    announces_trailers: bool,
}

impl<'b> Kept<'b> {
    pub(super) fn push(&mut self, field: Field<'b>) {
        // One allocation, as most heads have fewer.
        if self.fields.capacity() == 0 {
            self.fields.reserve(USUAL);
        }
        self.fields.push(field);
    }

    pub(super) fn push_announcement(&mut self, field: Field<'b>) {
        self.announces_trailers = true;
        self.push(field);
    }

    /// What `Connection` named goes no further.
    pub(super) fn drop_named(&mut self, connection: &Connection<'_>) {
        let named = &connection.named;
        if !named.is_empty() {
            self.fields.retain(|field| {
                !named
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(field.name))
            });
        }
    }

    /// Nothing comes after a body whose length is said before it.
    pub(super) fn drop_announced(&mut self) {
        if self.announces_trailers {
            self.fields.retain(|field| !field.is_trailer());
        }
    }

    pub(super) fn into_fields(self) -> Vec<Field<'b>> {
        self.fields
    }
}

const USUAL: usize = 16;
