// Package golden says whether golden files may be written, for helpers that users'
// tests call.
package golden

import (
	"flag"
	"os"
	"strconv"
)

// Env is the environment variable that asks for golden files to be written.
const Env = "ROSSBY_UPDATE"

// Update tells whether golden files may be written: ROSSBY_UPDATE is true, or the
// test has a flag -update of its own that is. A helper must not declare that flag:
// two packages that did could not be used in one test.
func Update() bool {
	if on, err := strconv.ParseBool(os.Getenv(Env)); err == nil {
		return on
	}
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}
