//! Tables of the alert engine, with a clock of the test.
