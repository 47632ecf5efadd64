//! Names of users and groups, from /etc/passwd and /etc/group.

use std::fs;

#[must_use]
pub fn gid_of(group: &str) -> Option<u32> {
    number_of(&fs::read_to_string("/etc/group").ok()?, group)
}

#[must_use]
pub fn user_of(uid: u32) -> Option<String> {
    name_of(&fs::read_to_string("/etc/passwd").ok()?, uid)
}

/// The third field where the first is `name`.
fn number_of(table: &str, name: &str) -> Option<u32> {
    fields(table)
        .find(|(known, _)| *known == name)
        .map(|(_, number)| number)
}

fn name_of(table: &str, number: u32) -> Option<String> {
    fields(table)
        .find(|(_, known)| *known == number)
        .map(|(name, _)| name.to_owned())
}

fn fields(table: &str) -> impl Iterator<Item = (&str, u32)> {
    table.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name, fields.nth(1)?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nfoobar:x:990:990::/:/bin/false\n";

    #[test]
    fn a_name_and_its_number_are_found_in_the_table() {
        assert_eq!(number_of(TABLE, "foobar"), Some(990));
        assert_eq!(name_of(TABLE, 0).as_deref(), Some("root"));
        assert_eq!(number_of(TABLE, "nobody"), None);
    }
}
