package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/cmd/rossby/internal/cli"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// TestJSON: with --json every command prints JSON and nothing else.
func TestJSON(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700, 5)
	at := b.account("a2", 700, unpayable)
	b.service()
	b.view()
	b.gateway()
	natstest.Eventually(t, "a letter is parked", func() error {
		s, err := followers.New(b.store).Status(t.Context(), "letters")
		if err == nil && s.Parked != 1 {
			err = fmt.Errorf("%d are", s.Parked)
		}
		return err
	})
	b.rossby("view", "get", "accounts", "a2", "--at-least", at.String()).ends(0)
	dir := t.TempDir()
	ran := map[string]bool{}
	for _, line := range []string{
		"store ls", "store info", "store verify", "store durability", "store export " + filepath.Join(dir, "f"),
		"store import " + filepath.Join(dir, "f") + " --store copy --compare",
		"events tail --no-follow", "events show 2",
		"aggregate show account/a1", "aggregate history account/a1", "aggregate at account/a1 --version 1",
		"command ls", "command send account debit a1 '{\"Cents\":1}'",
		"view ls", "view get accounts a1", "view keys accounts", "view watch accounts", "view status accounts",
		"view rebuild accounts", "view compare accounts 1 2", "view switch accounts 2 --yes", "view rollback accounts --yes",
		"view remove accounts 2 --yes", "view pause accounts", "view resume accounts",
		"view rebuild accounts --aggregate account/a1 --reason test", "view skip accounts --reason none --yes",
		"follower ls", "follower status letters", "follower pause letters", "follower resume letters",
		"parked ls", "parked show letters account/a2", "parked retry letters --all",
		"parked discard letters account/a2 --reason gone --yes",
		"follower replay letters --from 2 --to 2 --reason lost --yes", "follower end-replay letters", "follower actions",
		"roles query accounts --store bank", "bench -n 2", "new shop --dir " + filepath.Join(dir, "shop"),
	} {
		args := append(words(line), "--json")
		if !strings.Contains(line, "--store") && args[0] != "new" {
			args = append(args, "--store", "bank")
		}
		var r result
		switch {
		case strings.HasPrefix(line, "view watch"):
			r = b.watched(args)
		case strings.HasPrefix(line, "view skip"):
			r = b.rossby(args...).ends(6) // there is nothing to skip
		case strings.HasPrefix(line, "parked discard"), strings.HasPrefix(line, "follower replay"):
			// Once it is parked again; what is done may have lost its answer.
			reason := map[string]string{"parked": "gone", "follower": "lost"}[args[0]]
			natstest.Eventually(t, line, func() error {
				r = b.rossby(args...)
				if r.code == 0 || strings.Contains(b.rossby("follower", "actions", "--store", "bank").out, reason) {
					return nil
				}
				return errors.New(r.err)
			})
		default:
			r = b.rossby(args...).ends(0)
		}
		n := 0
		for dec := json.NewDecoder(strings.NewReader(r.out)); ; n++ {
			var v any
			err := dec.Decode(&v)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("%s: %v in\n%s", line, err, r.out)
				break
			}
		}
		if n == 0 && r.code == 0 {
			t.Errorf("%s prints nothing", line)
		}
		c, _, err := cli.Root(env(io.Discard, io.Discard)).Find(args)
		if err != nil {
			t.Fatal(err)
		}
		ran[c.CommandPath()] = true
	}
	walk(cli.Root(env(io.Discard, io.Discard)), func(c *cobra.Command) {
		if leaf(c) && !ran[c.CommandPath()] {
			t.Errorf("%s is not among them", c.CommandPath())
		}
	})
}

// watched runs a watch until its second line.
func (b *bank) watched(args []string) result {
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	w := &watcher{seen: make(chan string, 100)}
	code := make(chan int, 1)
	go func() { code <- w.run(ctx, b, args...) }()
	out := ""
	for range 2 {
		select {
		case line := <-w.seen:
			out += line + "\n"
		case <-time.After(natstest.Patience):
		}
	}
	cancel()
	return result{t: b.t, args: args, out: out, code: <-code}
}
