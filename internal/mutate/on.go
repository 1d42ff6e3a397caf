//go:build rossby_mutate

package mutate

import "os"

// Enabled tells builds that can have a defect.
const Enabled = true

var active = Defect(os.Getenv(Variable))

// On tells whether this process has the defect.
func On(d Defect) bool { return active == d }
