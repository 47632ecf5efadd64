//! Desired contents of a node's tables, and the order of writes in which no packet sees half of a change.

use std::collections::{BTreeMap, HashMap};

use foobar_ebpf::abi::{
    Backend, EndpointV4, EndpointV6, LabelKey, MAX_SETS, Member, MemberV4, MemberV6, Return,
    SetInfo, Vip,
};

use crate::balancer::Ring;
use crate::kernel::{Deployment, Difference, Hook, KernelError, Prefix, Table, Tables};

/// What the kernel should hold, the node's own addresses and routes apart: those come from its routing tables.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub hooks: Vec<Hook>,
    pub labels: HashMap<LabelKey, String>,
    pub ruleset: Vec<u64>,
    pub backends: BTreeMap<u32, Backend>,
    pub rings: BTreeMap<u32, Ring>,
    pub vips_v4: HashMap<EndpointV4, Vip>,
    pub vips_v6: HashMap<EndpointV6, Vip>,
    pub returns_v4: HashMap<EndpointV4, Return>,
    pub returns_v6: HashMap<EndpointV6, Return>,
    pub sets: Sets,
}

/// The members of the sets, those that the packet path adds itself apart.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    pub infos: BTreeMap<u32, SetInfo>,
    pub prefixes_v4: HashMap<Prefix<u32>, [u32; 2]>,
    pub prefixes_v6: HashMap<Prefix<[u32; 4]>, [u32; 2]>,
    pub hosts_v4: HashMap<MemberV4, Member>,
    pub hosts_v6: HashMap<MemberV6, Member>,
}

/// Brings the kernel from what it holds to `desired`. The programs of new interfaces must be prepared.
///
/// # Errors
/// The first refusal; then some of it is written. Applying what held before takes that back.
pub fn apply(deployment: &mut Deployment, desired: &Desired) -> Result<(), KernelError> {
    let leftovers = introduce(deployment.tables_mut(), desired)?;
    deployment.tables_mut().set_ruleset(&desired.ruleset)?;
    deployment.attach()?;
    deployment.retire_all_but(&desired.hooks)?;
    remove(deployment.tables_mut(), desired, leftovers)
}

/// What was in the tables and is not desired: removed once nothing refers to it.
#[derive(Debug)]
struct Leftovers {
    labels: Vec<LabelKey>,
    vips_v4: Vec<EndpointV4>,
    vips_v6: Vec<EndpointV6>,
    returns_v4: Vec<EndpointV4>,
    returns_v6: Vec<EndpointV6>,
    sets: SetLeftovers,
}

#[derive(Debug)]
struct SetLeftovers {
    prefixes_v4: Vec<Prefix<u32>>,
    prefixes_v6: Vec<Prefix<[u32; 4]>>,
    hosts_v4: Vec<MemberV4>,
    hosts_v6: Vec<MemberV6>,
}

/// Writes all that is new, each before what refers to it: backends, returns and rings before the vip that leads to
/// them, vips and set members before the rules.
fn introduce(tables: &mut Tables, desired: &Desired) -> Result<Leftovers, KernelError> {
    let labels = introduce_labels(tables, &desired.labels)?;
    for (id, backend) in &desired.backends {
        set_backend(tables, *id, *backend)?;
    }
    let returns_v4 = introduce_into(&mut tables.returns_v4, &desired.returns_v4)?;
    let returns_v6 = introduce_into(&mut tables.returns_v6, &desired.returns_v6)?;
    for (vip, ring) in &desired.rings {
        set_ring(tables, *vip, ring)?;
    }
    let sets = introduce_sets(tables, &desired.sets)?;
    Ok(Leftovers {
        labels,
        vips_v4: introduce_into(&mut tables.vips_v4, &desired.vips_v4)?,
        vips_v6: introduce_into(&mut tables.vips_v6, &desired.vips_v6)?,
        returns_v4,
        returns_v6,
        sets,
    })
}

fn remove(tables: &mut Tables, desired: &Desired, leftovers: Leftovers) -> Result<(), KernelError> {
    remove_from(&mut tables.vips_v4, leftovers.vips_v4)?;
    remove_from(&mut tables.vips_v6, leftovers.vips_v6)?;
    let v4 = leftovers
        .returns_v4
        .iter()
        .map(|key| tables.returns_v4.get(*key));
    let v6 = leftovers
        .returns_v6
        .iter()
        .map(|key| tables.returns_v6.get(*key));
    let gone = v4.chain(v6).collect::<Result<Vec<_>, _>>()?;
    for back in gone.into_iter().flatten() {
        tables.bequeath(back.backend, back.vip)?;
    }
    remove_from(&mut tables.returns_v4, leftovers.returns_v4)?;
    remove_from(&mut tables.returns_v6, leftovers.returns_v6)?;
    for key in &leftovers.labels {
        if key.kind == LabelKey::BACKEND {
            set_backend(tables, key.id, NO_BACKEND)?;
        }
    }
    remove_from(&mut tables.labels, leftovers.labels)?;
    remove_sets(tables, &desired.sets, leftovers.sets)
}

/// Brings the sets alone from what they are known to hold to what is desired.
///
/// # Errors
/// As [`apply`].
pub fn apply_sets(tables: &mut Tables, present: &Sets, desired: &Sets) -> Result<(), KernelError> {
    let leftovers = SetLeftovers {
        prefixes_v4: write(
            &mut tables.set_prefixes_v4,
            Difference::between(&present.prefixes_v4, &desired.prefixes_v4),
        )?,
        prefixes_v6: write(
            &mut tables.set_prefixes_v6,
            Difference::between(&present.prefixes_v6, &desired.prefixes_v6),
        )?,
        hosts_v4: write(
            &mut tables.set_hosts_v4,
            Difference::between(&present.hosts_v4, &desired.hosts_v4),
        )?,
        hosts_v6: write(
            &mut tables.set_hosts_v6,
            Difference::between(&present.hosts_v6, &desired.hosts_v6),
        )?,
    };
    introduce_infos(tables, desired)?;
    remove_sets(tables, desired, leftovers)
}

/// Writes a backend's value where it differs.
///
/// # Errors
/// When the kernel refuses.
pub fn set_backend(tables: &mut Tables, id: u32, backend: Backend) -> Result<(), KernelError> {
    if tables.backends.get(id)? == backend {
        return Ok(());
    }
    tables.backends.set(id, backend)
}

/// Swaps a vip's ring where it differs.
///
/// # Errors
/// When the kernel refuses.
pub fn set_ring(tables: &mut Tables, vip: u32, ring: &Ring) -> Result<(), KernelError> {
    if tables.ring(vip)?.as_ref() == Some(ring) {
        return Ok(());
    }
    tables.set_ring(vip, ring)
}

pub const NO_BACKEND: Backend = Backend {
    address: [0; 4],
    port: 0,
    sum: 0,
    flags: 0,
    ifindex: 0,
    macs: [0; 3],
    mtu: 0,
    epoch: 0,
};

/// A label that is new or says something else now names a recycled id: its counters start anew.
fn introduce_labels(
    tables: &mut Tables,
    desired: &HashMap<LabelKey, String>,
) -> Result<Vec<LabelKey>, KernelError> {
    let difference = Difference::between(
        &tables.labels.contents()?,
        &desired
            .iter()
            .map(|(key, text)| (*key, crate::kernel::label(text)))
            .collect(),
    );
    tables.recycle(&difference.upserts.iter().map(|(key, _)| *key).collect())?;
    for (key, label) in difference.upserts {
        tables.labels.insert(key, label)?;
    }
    Ok(difference.removals)
}

fn introduce_sets(tables: &mut Tables, desired: &Sets) -> Result<SetLeftovers, KernelError> {
    let leftovers = SetLeftovers {
        prefixes_v4: introduce_into(&mut tables.set_prefixes_v4, &desired.prefixes_v4)?,
        prefixes_v6: introduce_into(&mut tables.set_prefixes_v6, &desired.prefixes_v6)?,
        hosts_v4: introduce_into(&mut tables.set_hosts_v4, &desired.hosts_v4)?,
        hosts_v6: introduce_into(&mut tables.set_hosts_v6, &desired.hosts_v6)?,
    };
    introduce_infos(tables, desired)?;
    Ok(leftovers)
}

fn introduce_infos(tables: &mut Tables, desired: &Sets) -> Result<(), KernelError> {
    for (id, info) in &desired.infos {
        let present = tables.sets.get(*id)?;
        let both = SetInfo {
            tables: present.tables | info.tables,
            ..*info
        };
        if both != present {
            tables.sets.set(*id, both)?;
        }
    }
    Ok(())
}

fn remove_sets(
    tables: &mut Tables,
    desired: &Sets,
    leftovers: SetLeftovers,
) -> Result<(), KernelError> {
    const NO_SET: SetInfo = SetInfo {
        tables: 0,
        zero: 0,
        timeout: 0,
    };
    for id in 0..MAX_SETS {
        let info = desired.infos.get(&id).copied().unwrap_or(NO_SET);
        if tables.sets.get(id)? != info {
            tables.sets.set(id, info)?;
        }
    }
    remove_from(&mut tables.set_prefixes_v4, leftovers.prefixes_v4)?;
    remove_from(&mut tables.set_prefixes_v6, leftovers.prefixes_v6)?;
    remove_from(&mut tables.set_hosts_v4, leftovers.hosts_v4)?;
    remove_from(&mut tables.set_hosts_v6, leftovers.hosts_v6)
}

fn introduce_into<T: Table>(
    table: &mut T,
    desired: &HashMap<T::Key, T::Value>,
) -> Result<Vec<T::Key>, KernelError> {
    let difference = table.difference(desired)?;
    write(table, difference)
}

/// Adds and replaces; answers what is left to remove.
fn write<T: Table>(
    table: &mut T,
    difference: Difference<T::Key, T::Value>,
) -> Result<Vec<T::Key>, KernelError> {
    for (key, value) in difference.upserts {
        table.insert(key, value)?;
    }
    Ok(difference.removals)
}

fn remove_from<T: Table>(table: &mut T, keys: Vec<T::Key>) -> Result<(), KernelError> {
    keys.into_iter().try_for_each(|key| table.remove(key))
}
