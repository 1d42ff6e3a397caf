package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/cmd/rossby/internal/cli"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/projection"
)

func TestView(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700)
	at := b.account("a2", 10)
	b.rossby("view", "ls").ends(0).says(`has no views`)
	b.view()

	b.rossby("view", "get", "accounts", "a2", "--at-least", at.String()).ends(0).says(`{"cents":10}`)
	b.rossby("view", "get", "accounts", "a3").ends(3).fails("a3")
	b.rossby("view", "get", "acounts", "a1").ends(3).fails("did you mean accounts?")
	b.rossby("view", "get", "accounts", "a1", "--at-least", "nonsense!").ends(2)
	b.until(words("view ls"), "accounts  running")
	var entry struct {
		Value struct{ Cents int }
	}
	b.rossby("view", "get", "accounts", "a1", "--json").ends(0).decode(&entry)
	if entry.Value.Cents != 700 {
		t.Errorf("%+v", entry)
	}
	b.rossby("view", "keys", "accounts").ends(0).says("a1\t{\"cents\":700}", "a2\t")
	b.rossby("view", "keys", "accounts", "a2").ends(0).says("a2")
	r := b.rossby("view", "keys", "accounts", "--limit", "1").ends(0).fails("--after ")
	if strings.Count(r.out, "\n") != 1 {
		t.Error(r.out)
	}
	_, rest, _ := strings.Cut(r.err, "--after ")
	token, _, _ := strings.Cut(rest, " ")
	b.rossby("view", "keys", "accounts", "--limit", "1", "--after", token).ends(0).says("a2\t")

	// Blue and green.
	b.rossby("view", "rebuild", "accounts").ends(0).says("generation 2 has caught up")
	b.rossby("view", "status", "accounts").ends(0).says("live", "building")
	b.rossby("view", "rebuild", "accounts").ends(6)
	b.rossby("view", "compare", "accounts", "1", "2").ends(0).says("2 keys compared: 0 differences")
	b.rossby("view", "compare", "accounts", "1", "9").ends(6)
	b.rossby("view", "compare", "accounts", "1", "two").ends(2)
	b.rossby("view", "switch", "accounts", "2", "--yes").ends(0).says("generation 2 is live")
	// Once: a second one would take back the first.
	b.once(t.Context(), "view", "rollback", "accounts", "--yes").ends(0).says("generation 1 is live again")
	b.rossby("view", "remove", "accounts", "1", "--yes").ends(6).fails("is live")
	b.rossby("view", "remove", "accounts", "2", "--yes").ends(0)
	b.rossby("view", "rebuild", "accounts", "--switch").ends(0).says("generation 3 is live")
	b.rossby("view", "remove", "accuonts", "1", "--yes").ends(3).fails("did you mean accounts?")

	b.rossby("view", "pause", "accounts", "--reason", "moving").ends(0)
	b.rossby("view", "status", "accounts").ends(0).says("paused", "moving")
	b.rossby("view", "resume", "accounts").ends(0)
	b.rossby("view", "skip", "accounts", "--reason", "x", "--yes").ends(6).fails("has not stopped")

	// It stops at an event, and goes on without it.
	b.account("a4", 50, unfoldable, 1)
	natstest.Eventually(t, "the view stops", func() error {
		s, err := projection.ReadStatus(t.Context(), b.nc, "bank", "accounts")
		if err == nil && s.State != projection.StateStopped {
			err = fmt.Errorf("it is %s", s.State)
		}
		return err
	})
	b.until(words("view status accounts"), "stopped", "nobody debits that much", "debited")
	b.rossby("view", "skip", "accounts", "--yes").ends(2).fails("--reason")
	b.rossby("view", "skip", "accounts", "--reason", "ticket 17", "--yes").ends(0)
	at, err := b.store.LastPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.rossby("view", "get", "accounts", "a4", "--at-least", at.String()).ends(0).says(`{"cents":49}`)
}

// TestSwitchEnds: a generation that cannot catch up is waited for as long as --timeout
// says, and goes live later all the same.
func TestSwitchEnds(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700)
	u, err := projection.NewUpdater(b.store, accounts, projection.UpdaterConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- u.Run(ctx) }()
	natstest.Eventually(t, "the view is there", func() error {
		_, err := projection.ReadStatus(t.Context(), b.nc, "bank", "accounts")
		return err
	})
	b.rossby("view", "rebuild", "accounts", "--switch").ends(0)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	// Nobody is left who could. As nothing goes live, it may be asked for again.
	for _, line := range []string{"view rollback accounts --yes --timeout 2s", "view switch accounts 1 --yes --timeout 2s"} {
		natstest.Eventually(t, line, func() error {
			r := b.once(t.Context(), words(line)...)
			if r.ends(unavailable); !strings.Contains(r.err, "waits for it: rossby view switch accounts 1") {
				return errors.New(r.err)
			}
			return nil
		})
	}
	b.view()
	b.rossby("view", "switch", "accounts", "1", "--yes").ends(0).says("generation 1 is live")
}

// TestCompareFinds: generations that differ end with 4.
func TestCompareFinds(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700)
	b.view()
	b.rossby("view", "rebuild", "accounts").ends(0)
	kv, err := b.nc.JetStream(nats.MaxWait(natstest.Patience))
	if err != nil {
		t.Fatal(err)
	}
	old, err := kv.GetLastMsg("KV_bank_accounts", "$KV.bank_accounts.2.a1")
	if err != nil {
		t.Fatal(err)
	}
	// Somebody edits the bucket.
	m := &nats.Msg{Subject: old.Subject, Data: []byte(`{"cents":1}`)}
	m.Header = nats.Header{"Rossby-Sequence": old.Header["Rossby-Sequence"]}
	if _, err := kv.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	b.rossby("view", "compare", "accounts", "1", "2").ends(4).says("a1", `1: {"cents":700}`, `2: {"cents":1}`, "1 differences")
}

// TestRebuildInterrupted: an interrupt ends the waiting, not the rebuild.
func TestRebuildInterrupted(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700)
	b.view()
	b.rossby("view", "pause", "accounts").ends(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.notes = func(text string) {
		if strings.Contains(text, "nobody builds generation 2 yet") {
			cancel()
		}
	}
	b.rossbyIn(ctx, "view", "rebuild", "accounts").ends(130).fails("generation 2 goes on being built")
	b.rossby("view", "resume", "accounts").ends(0)
	natstest.Eventually(t, "it is built", func() error {
		g, err := admin(t, b).Generations(t.Context())
		if err == nil && (len(g) != 2 || !g[1].CaughtUp()) {
			err = fmt.Errorf("%+v", g)
		}
		return err
	})
}

func admin(t testing.TB, b *bank) *projection.Admin {
	t.Helper()
	a, err := projection.NewAdmin(b.nc, "bank", "accounts")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWatch(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	at := b.account("a1", 700)
	b.view()
	b.rossby("view", "get", "accounts", "a1", "--at-least", at.String()).ends(0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &watcher{seen: make(chan string, 100)}
	code := make(chan int, 1)
	go func() { code <- w.run(ctx, b, "view", "watch", "accounts") }()
	w.await(t, "put\ta1\t{\"cents\":700}")
	w.await(t, "ready")
	b.account("a2", 10)
	w.await(t, "put\ta2\t{\"cents\":10}")
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}

// TestConfirm: what cannot be undone is asked for, and not done otherwise.
func TestConfirm(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700)
	b.view()
	b.rossby("view", "rebuild", "accounts").ends(0)
	remove := []string{"view", "remove", "accounts", "2"}
	b.in = "y\n"
	b.rossby(remove...).ends(2).fails("Delete generation 2", "--yes") // no terminal, whatever is piped in
	b.inTerminal = true
	for _, no := range []string{"n\n", "\n", "", "yess\n"} {
		b.in = no
		b.rossby(remove...).ends(6).fails("[y/N]", "nothing was done")
	}
	b.rossby("view", "status", "accounts").ends(0).says("building")
	b.in = "YES\n"
	b.rossby(remove...).ends(0).says("generation 2 is removed")

	// An interrupt is a no.
	ctx, cancel := context.WithCancel(t.Context())
	in := &blocked{cancel: cancel, until: t.Context().Done()}
	var out, errOut bytes.Buffer
	b.rossby("view", "rebuild", "accounts").ends(0)
	code := cli.Run(ctx, []string{
		"view", "remove", "accounts", "3", "--server", b.url, "--no-context", "--timeout", natstest.Patience.String(),
	},
		cli.Env{In: in, Out: &out, Err: &errOut, InTerminal: true})
	if code != 130 {
		t.Errorf("exit code %d: %s", code, errOut.String())
	}
	b.rossby("view", "status", "accounts").ends(0).says("building")
}

// blocked is a terminal where somebody presses Ctrl-C.
type blocked struct {
	cancel func()
	until  <-chan struct{}
}

func (b *blocked) Read([]byte) (int, error) {
	b.cancel()
	<-b.until
	return 0, errors.New("the test is over")
}

func TestFollower(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.rossby("follower", "ls").ends(0).says("has no followers")
	b.account("a1", 700, 5)
	b.account("a2", 700, unpayable, 6)
	b.gateway()
	natstest.Eventually(t, "a letter is parked", func() error {
		s, err := followers.New(b.store).Status(t.Context(), "letters")
		if err == nil && s.Parked != 1 {
			err = fmt.Errorf("%d are", s.Parked)
		}
		return err
	})
	b.until(words("follower ls"), "letters", "gateway", "active")
	b.until(words("follower status letters"), "Parked:", "no such address", "bank.event.account.")
	b.rossby("follower", "status", "leters").ends(3).fails("did you mean letters?")
	b.rossby("follower", "status", "le*").ends(2)
	b.rossby("follower", "pause", "letters", "--reason", "strike", "--by", "ada").ends(0)
	b.until(words("follower status letters"), "paused", "by ada", "strike")
	b.rossby("follower", "resume", "letters").ends(0)
	b.until(words("follower actions letters"), "pause  by ada", "resume")

	b.until(words("parked ls"), "letters", "no such address")
	var groups []struct {
		Follower, ID string
		Count        int
	}
	b.rossby("parked", "ls", "letters", "--json").ends(0).decode(&groups)
	if len(groups) != 1 || groups[0].Follower != "letters" || groups[0].Count != 1 {
		t.Fatalf("%+v", groups)
	}
	b.until(words("parked show letters account/a2"), "no such address", "debited", `{"Cents":17}`)
	b.rossby("parked", "show", "letters", "account/a1").ends(3)
	b.rossby("parked", "retry", "letters").ends(2).fails("--group or --all")
	b.rossby("parked", "retry", "letters", "account/a1").ends(6)
	b.until(words("parked retry letters --group "+groups[0].ID), "tries 1 lanes again") // and is parked each time
	b.rossby("parked", "discard", "letters", "account/a2", "--yes").ends(2).fails("--reason")
	discard(b, "letters", "account/a2", "moved away")
	b.until(words("parked ls"), "Nothing is parked.")
	b.until(words("follower actions"), "retry", "discard", "moved away")

	b.rossby("follower", "replay", "letters", "--from", "1", "--to", "3", "--yes").ends(2).fails("--reason")
	b.rossby("follower", "replay", "letters", "--from", "3", "--to", "1", "--reason", "lost", "--yes").ends(2)
	b.rossby("follower", "replay", "letters", "--from", "2", "--to", "3", "--reason", "lost").ends(2).fails("deliver the events")
	natstest.Eventually(t, "it is delivered again", func() error { // what was asked for may be done, and the answer lost
		r := b.rossby(words("follower replay letters --from 2 --to 3 --reason lost --yes")...)
		if done := b.rossby("follower", "actions"); strings.Contains(done.out, "replay") && strings.Contains(done.out, "lost") {
			return nil
		}
		return fmt.Errorf("exit code %d: %s", r.code, r.err)
	})
	b.rossby("follower", "end-replay", "letters").ends(0)
}

// discard gives up the only thing that waits, once it waits again. Its answer may be
// lost: the record says what was asked for, and that nothing is parked that it was done. An
// owner that stood still may have recorded it and done nothing.
func discard(b *bank, follower, aggregate, reason string) {
	b.t.Helper()
	natstest.Eventually(b.t, "it is parked again and discarded", func() error {
		r := b.rossby("parked", "discard", follower, aggregate, "--reason", reason, "--yes", "--store", "bank")
		if done := b.rossby("follower", "actions", "--store", "bank"); strings.Contains(done.out, reason) &&
			strings.Contains(b.rossby("parked", "ls", "--store", "bank").out, "Nothing is parked") {
			return nil
		}
		return fmt.Errorf("exit code %d: %s", r.code, r.err)
	})
}

// TestCompletion: a shell is offered the names there are.
func TestCompletion(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.account("a1", 700)
	b.service()
	b.view()
	offers := func(want string, line ...string) {
		t.Helper()
		args := append([]string{"__complete", "--server", b.url, "--no-context"}, line...)
		natstest.Eventually(t, strings.Join(args, " "), func() error { // a shell waits a second at most
			var out bytes.Buffer
			if code := cli.Run(t.Context(), args, env(&out, &bytes.Buffer{})); code != 0 || !strings.Contains(out.String(), want+"\n") {
				return fmt.Errorf("exit code %d, %q is not in\n%s", code, want, out.String())
			}
			return nil
		})
	}
	offers("bank", "store", "verify", "")
	offers("bank", "events", "tail", "--store", "")
	offers("accounts", "view", "get", "")
	offers("account", "command", "send", "")
	offers("verify\tReads a store and reports what is wrong with it", "store", "ver")
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		run(t, "completion", shell).ends(0).says("rossby")
	}
}
