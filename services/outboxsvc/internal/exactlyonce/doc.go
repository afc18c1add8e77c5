// Package exactlyonce proves that charges have their effect at Autumn exactly
// once: seeded plans of faults, kills, days of downtime and replays beyond the
// life of an id, with the real relay and client against the simulator, on a clock
// that the test moves. It has tests only.
//
// EXACTLY_ONCE_SEEDS says how many seeds are tried and EXACTLY_ONCE_FIRST which
// is the first.
package exactlyonce
