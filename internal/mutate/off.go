//go:build !rossby_mutate

package mutate

// Enabled tells builds that can have a defect.
const Enabled = false

// On tells whether this process has the defect.
func On(Defect) bool { return false }
