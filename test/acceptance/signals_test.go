package acceptance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// oneTrace follows a transfer through every module, in one process or in all of
// them: every span is of the trace that the request named.
func oneTrace(t *testing.T, c *client, processes int) {
	t.Helper()
	from, to := c.open(t, firstBalance), c.open(t, secondBalance)
	trace := fmt.Sprintf("%016x%016x", time.Now().UnixNano(), unique.Add(1))
	body, err := json.Marshal(map[string]any{"fromAccountId": from, "toAccountId": to, "cents": transferAmount})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+"/api/transfers", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatal(resp.Status, string(answer), err)
	}
	type span struct{ TraceID, SpanID, ParentID, Name, Process string }
	eventually(t.Context(), t, "the whole trace", time.Minute, func() error {
		spans := call[[]span](t, c, http.StatusOK, http.MethodGet, "/api/traces/"+trace, nil)
		ids, names, in := map[string]bool{"00f067aa0ba902b7": true}, make([]string, 0, len(spans)), map[string]bool{}
		for _, s := range spans {
			ids[s.SpanID] = true
			names = append(names, s.Name)
			in[s.Process] = true
		}
		for _, s := range spans {
			if s.TraceID != trace || !ids[s.ParentID] {
				return fmt.Errorf("%s is below %q, which is not there", s.Name, s.ParentID)
			}
		}
		for _, want := range []string{
			"execute transfer create", "commit transfer", "react money-transfer created", "execute account debit",
			"commit account", "execute account credit", "project transfers", "project accounts", "project ledger",
			"deliver notifications ",
		} {
			if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, want) }) {
				return fmt.Errorf("%q is not among %q", want, names)
			}
		}
		if len(in) < processes {
			return fmt.Errorf("it was in %d processes, want %d", len(in), processes)
		}
		return nil
	})
}

// metricsAnswer wants what Prometheus scrapes, of the process that serves HTTP.
func metricsAnswer(t *testing.T, c *client) {
	a, err := c.do(t.Context(), http.MethodGet, "/metrics", "", nil)
	if err != nil || a.status != http.StatusOK {
		t.Fatal(a.status, err)
	}
	for _, want := range []string{`rossby_store_up{`, `rossby_connection_up{`, `rossby_module_ready{`, `rossby_module_name="api"`} {
		if !bytes.Contains(a.body, []byte(want)) {
			t.Errorf("%s is not in\n%s", want, a.body)
		}
	}
}
