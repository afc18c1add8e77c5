// Package dev holds the proofs about the whole project: its shape, its behaviour
// end to end, its deployment files. It has tests only, and nobody imports it.
package dev
