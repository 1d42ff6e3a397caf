package aggregate_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

func TestMain(m *testing.M) {
	if p := os.Getenv(crashEnv); p != "" {
		// A process that TestReactorProcessDies starts to see it die.
		fmt.Fprintln(os.Stderr, crashing(p))
		os.Exit(1)
	}
	natstest.VerifyTestMain(m)
}
