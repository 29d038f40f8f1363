//! Who votes in a simulated group, and what happened in its history.

/// Who votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    PairNodes(usize),
    PairWitness,
    PairTrusted,
    Voters(usize),
}

impl Group {
    /// A trusted server decides, or breaks a tie.
    pub(crate) fn asks_trusted(self) -> bool {
        matches!(self, Self::PairTrusted) || self.may_tie()
    }

    /// Half of the servers and a trusted one are a majority: nothing is promised for a cut that parts them while both see a trusted one.
    pub(crate) fn may_tie(self) -> bool {
        matches!(self, Self::PairNodes(nodes) if nodes % 2 == 0)
    }
}

/// What happened, to see that something did.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) elections: u64,
    pub(crate) takes: u64,
    pub(crate) consents: u64,
    pub(crate) records: u64,
    pub(crate) deaths: u64,
    pub(crate) freezes: u64,
    pub(crate) hand_overs: u64,
    /// Members that found themselves unable to hold the address.
    pub(crate) unfit: u64,
    pub(crate) steps: u64,
    /// The longest take-over, in milliseconds.
    pub(crate) slowest: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.elections += other.elections;
        self.takes += other.takes;
        self.consents += other.consents;
        self.records += other.records;
        self.deaths += other.deaths;
        self.freezes += other.freezes;
        self.hand_overs += other.hand_overs;
        self.unfit += other.unfit;
        self.steps += other.steps;
        self.slowest = self.slowest.max(other.slowest);
    }
}
