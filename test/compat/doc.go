// Package compat runs Rossby against servers of the oldest version it works with
// and of the newest, each as a process of its own, and against what the first
// format has left on a disk.
package compat
