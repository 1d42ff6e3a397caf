package roles_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/rossby-go/rossby/jetstream/roles"
)

// TestNSCScript: a shell runs the script, and calls nsc so that its users may what
// [roles.User.Claims] says. In nsc's place stands what writes down how it was called:
// nsc itself is tried by hand, docs/security.md says when.
func TestNSCScript(t *testing.T) {
	t.Parallel()
	script, err := roles.NSC("it's a BANK", users()...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	const stub = "#!/bin/sh\nfor a in \"$@\"; do printf '%s\\n' \"$a\"; done >>\"$CALLS\"\necho >>\"$CALLS\"\n"
	for name, text := range map[string]string{"nsc": stub, "roles.sh": script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", filepath.Join(dir, "roles.sh"))
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "CALLS="+calls)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(text)), "\n\n")
	if len(got) != len(users()) {
		t.Fatalf("%d calls for %d users", len(got), len(users()))
	}
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range users() {
		claims, err := u.Claims(public)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			"add", "user", "--account", "it's a BANK", "--name", u.Name,
			"--allow-pub", strings.Join(claims.Pub.Allow, ","), "--allow-sub", strings.Join(claims.Sub.Allow, ","),
		}
		if claims.Resp != nil {
			want = append(want, "--allow-pub-response="+strconv.Itoa(claims.Resp.MaxMsgs), "--response-ttl", claims.Resp.Expires.String())
		}
		if args := strings.Split(got[i], "\n"); !slices.Equal(args, want) {
			t.Errorf("%s: nsc was called with\n%q, want\n%q", u.Name, args, want)
		}
	}
}
