//! What became of a packet and why.

/// The whole answer of the packet path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict {
    pub reason: Reason,
    /// Index of the interface to send it through, where the reason says that it is sent.
    pub interface: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// On to the stack, or out.
    Pass,
    Drop,
    /// Out through the interface with this index.
    Transmit(u32),
    /// Back out of the interface that it came by.
    Reflect,
}

impl Verdict {
    /// A verdict that sends nothing.
    #[inline(always)]
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self {
            reason,
            interface: 0,
        }
    }

    #[inline(always)]
    #[must_use]
    pub const fn transmit(reason: Reason, interface: u32) -> Self {
        Self { reason, interface }
    }

    #[inline(always)]
    #[must_use]
    pub const fn action(self) -> Action {
        if self.reason.drops() {
            Action::Drop
        } else if self.reason.reflects() {
            Action::Reflect
        } else if self.reason.transmits() {
            Action::Transmit(self.interface)
        } else {
            Action::Pass
        }
    }
}

/// Why a packet got its verdict; the number is the index of its counter.
///
/// Reasons up to [`Reason::LAST_ACCEPTING`] let the packet live, all others drop it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Reason {
    /// The interface has no policy in this direction.
    NoPolicy = 0,
    /// A rule allowed it.
    RuleAllow = 1,
    /// No rule matched, the policy allows.
    PolicyAllow = 2,
    /// It answers a connection that this node, or one behind it, opened.
    Reply = 3,
    /// ARP, neighbour discovery: no policy may cut them.
    Neighbour = 4,
    /// A path-MTU message that no rule dropped.
    PathMtu = 5,
    /// Not IP and not ARP (LLDP, STP, …), passed to the stack.
    NotIp = 6,
    /// Rewritten to a backend and sent.
    Forwarded = 7,
    /// A backend's answer, rewritten to the vip and sent.
    Returned = 8,
    /// An ICMP error about a balanced flow, sent to the backend that has the flow.
    ErrorForwarded = 9,
    /// The backend of its flow is lost: a RST went back to the client.
    Reset = 10,
    /// Nobody may take it: its SYN was answered with a RST.
    Refused = 11,

    /// A rule dropped it.
    RuleDrop = 16,
    /// No rule matched, the policy drops.
    PolicyDrop = 17,
    /// An allowing rule matched, its limit was exceeded.
    RateLimit = 18,
    /// A header is cut off by the end of the frame.
    Truncated = 19,
    /// A header contradicts itself (version, IHL, data offset, total length).
    Malformed = 20,
    /// More VLAN tags, extension headers or tunnels than the parser follows.
    TooDeep = 21,
    /// A later fragment that no rule without ports matched and whose first fragment was not seen.
    FragmentUnknown = 22,
    /// The vip has no backend that could take it.
    NoBackend = 23,
    /// The next hop's hardware address is not known (yet).
    NoNeighbour = 24,
    /// No route to the destination.
    NoRoute = 25,
    /// TTL or hop limit is used up.
    TtlExceeded = 26,
    /// Larger than the MTU of the way out.
    TooBig = 27,
    /// A table that user space fills is not there or inconsistent; must stay 0.
    Internal = 28,
    /// An answer of a backend whose flow was cut.
    CutOff = 29,
}

impl Reason {
    /// Counter slots a direction of an interface has.
    pub const SLOTS: u32 = 32;
    pub const LAST_ACCEPTING: u32 = 15;
    pub const ALL: [Self; 26] = [
        Self::NoPolicy,
        Self::RuleAllow,
        Self::PolicyAllow,
        Self::Reply,
        Self::Neighbour,
        Self::PathMtu,
        Self::NotIp,
        Self::Forwarded,
        Self::Returned,
        Self::ErrorForwarded,
        Self::Reset,
        Self::Refused,
        Self::RuleDrop,
        Self::PolicyDrop,
        Self::RateLimit,
        Self::Truncated,
        Self::Malformed,
        Self::TooDeep,
        Self::FragmentUnknown,
        Self::NoBackend,
        Self::NoNeighbour,
        Self::NoRoute,
        Self::TtlExceeded,
        Self::TooBig,
        Self::Internal,
        Self::CutOff,
    ];

    #[must_use]
    pub const fn drops(self) -> bool {
        self as u32 > Self::LAST_ACCEPTING
    }

    #[inline(always)]
    #[must_use]
    pub const fn transmits(self) -> bool {
        matches!(
            self,
            Self::Forwarded | Self::Returned | Self::ErrorForwarded
        )
    }

    /// The frame became an answer to its sender.
    #[inline(always)]
    #[must_use]
    pub const fn reflects(self) -> bool {
        matches!(self, Self::Reset | Self::Refused)
    }

    /// The name that `stats drops` shows and metrics carry as a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoPolicy => "no-policy",
            Self::RuleAllow => "rule-allow",
            Self::PolicyAllow => "policy-allow",
            Self::Reply => "reply",
            Self::Neighbour => "neighbour",
            Self::PathMtu => "path-mtu",
            Self::NotIp => "not-ip",
            Self::Forwarded => "forwarded",
            Self::Returned => "returned",
            Self::ErrorForwarded => "error-forwarded",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::RuleDrop => "rule",
            Self::PolicyDrop => "policy",
            Self::RateLimit => "rate-limit",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::TooDeep => "too-deep",
            Self::FragmentUnknown => "fragment-unknown",
            Self::NoBackend => "no-backend",
            Self::NoNeighbour => "no-neighbour",
            Self::NoRoute => "no-route",
            Self::TtlExceeded => "ttl-exceeded",
            Self::TooBig => "too-big",
            Self::Internal => "internal",
            Self::CutOff => "cut-off",
        }
    }
}
