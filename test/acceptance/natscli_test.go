package acceptance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// natsCLI is the version of the standard command line that the test builds.
const natsCLI = "github.com/nats-io/natscli/nats@v0.5.1"

// TestNATSCommandLine: any NATS client can take part.
func TestNATSCommandLine(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	natstest.Eventually(t, "install "+natsCLI, func() error { // a download may fail and succeed
		install := exec.CommandContext(t.Context(), "go", "install", natsCLI)
		install.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=mod")
		install.Dir = bin // outside the module, whose go.mod it must not touch
		out, err := install.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
	_, base, url := monolith(t)
	home := t.TempDir()
	nats := natsCommand(t, bin, home, url)
	c := newClient(base)

	// A command by request-reply, its answer as JSON.
	out := nats("req", "bank.command.account.open.a1", `{"title":"by hand","initialCents":700}`, "--raw")
	var reply struct {
		ID       string `json:"id"`
		Version  uint64 `json:"version"`
		Position string `json:"position"`
		Events   []struct {
			Name string `json:"name"`
		} `json:"events"`
	}
	if err := json.Unmarshal([]byte(out), &reply); err != nil || reply.ID != "a1" || reply.Version != 1 || reply.Position == "" ||
		len(reply.Events) != 1 ||
		reply.Events[0].Name != "opened" {
		t.Fatalf("%v: %s", err, out)
	}
	c.balance(t, "a1", 700)

	// A view's entry as plain JSON.
	out = nats("kv", "get", "bank_accounts", "1.a1", "--raw")
	var view accountView
	if err := json.Unmarshal([]byte(out), &view); err != nil || view.AccountID != "a1" || view.BalanceCents != 700 {
		t.Fatalf("%v: %s", err, out)
	}

	// A refusal says why.
	if out = nats("req", "bank.command.account.debit.a1", `{"transferId":"t","cents":9999}`); !strings.Contains(
		out,
		"insufficient-funds",
	) {
		t.Fatal(out)
	}

	eventually(t.Context(), t, "all services answer in time", func() error {
		out := nats("micro", "ls")
		for _, service := range []string{"bank-account", "bank-customer", "bank-transfer"} {
			if !strings.Contains(out, service) {
				return fmt.Errorf("%s is not among the services:\n%s", service, out)
			}
		}
		return nil
	})
	for _, follower := range []string{"accounts", "money-transfer", "notifications"} {
		if out = nats("consumer", "info", "bank", follower); !strings.Contains(out, "Unprocessed Messages") {
			t.Errorf("consumer %s:\n%s", follower, out)
		}
	}

	t.Run("Plugin", func(t *testing.T) {
		t.Parallel()
		plugin(t, home, url, natsCommand(t, bin, home, url))
	})
}

// natsCommand runs the nats command with a home of its own.
func natsCommand(t testing.TB, bin, home, url string) func(args ...string) string {
	return func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "nats"), append([]string{"--server", url}, args...)...)
		cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home, "HOME="+home,
			"NATS_TIMEOUT="+natstest.Patience.String())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("nats %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
}
