pub(crate) mod replays;
