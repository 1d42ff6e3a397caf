package todo_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/examples/todo/todo"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// TestServe is the list as its users meet it: over HTTP, in two instances.
func TestServe(t *testing.T) {
	t.Parallel()
	url, name := natstest.Run(t).URL(), natstest.Name(t)
	nc := natstest.Conn(t, url)
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	bulks, err := aggregate.NewRepository(store, todo.BulkType, aggregate.RepositoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	one, two := serve(t, url, name), serve(t, url, name)

	// Thirty to-dos, each second one done.
	var position string
	for i := range 30 {
		id := fmt.Sprint("t", i)
		position = post(t, one+"/do/todo/"+id+"/add", `{"Title":"Do `+id+`"}`, http.StatusCreated).Get("Rossby-Position")
		if i%2 == 0 {
			position = post(t, two+"/do/todo/"+id+"/complete", `{}`, http.StatusOK).Get("Rossby-Position")
		}
	}
	if item := get(t, two+"/todos/t4?after="+position); item != `{"title":"Do t4","done":true}` {
		t.Errorf("%s", item)
	}
	// What changes nothing is stored nowhere.
	before, err := store.LastPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	post(t, one+"/do/todo/t4/complete", `{}`, http.StatusOK)
	post(t, two+"/do/todo/t4/rename", `{"Title":"Do t4"}`, http.StatusOK)
	post(t, two+"/do/todo/t4/rename", `{"Title":""}`, http.StatusUnprocessableEntity)
	if after, err := store.LastPosition(t.Context()); err != nil || after != before {
		t.Errorf("the store went from %v to %v, %v", before, after, err)
	}

	// All that are done are deleted.
	var answer struct {
		Bulk string `json:"bulk"`
	}
	if err := json.Unmarshal([]byte(body(t, http.MethodPost, two+"/clear", "", http.StatusAccepted)), &answer); err != nil {
		t.Fatal(err)
	}
	var finished todo.Bulk
	natstest.Eventually(t, "the bulk deletion", func() error {
		bulk, err := bulks.Load(t.Context(), answer.Bulk)
		if finished = bulk.State; err == nil && !finished.Finished {
			err = fmt.Errorf("not finished: %+v", finished)
		}
		return err
	})
	if want := (todo.BulkFinished{Deleted: 15}); finished.Result != want {
		t.Errorf("%+v; want %+v", finished.Result, want)
	}
	last, err := store.LastPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Entries []struct {
			Value todo.Item `json:"value"`
		} `json:"entries"`
	}
	if err := json.Unmarshal([]byte(get(t, one+"/todos/?after="+last.String())), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Entries) != 15 {
		t.Errorf("%d are left", len(list.Entries))
	}
	for _, e := range list.Entries {
		if e.Value.Done || e.Value.Title == "" {
			t.Errorf("%+v is left", e.Value)
		}
	}
}

// serve runs the list until the test ends, and returns its address.
func serve(t *testing.T, url, name string) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	nc := natstest.Conn(t, url)
	go func() { ended <- todo.Serve(ctx, nc, name, listener) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}

func post(t *testing.T, url, text string, status int) http.Header {
	t.Helper()
	header, _ := call(t, http.MethodPost, url, text, status)
	return header
}

func get(t *testing.T, url string) string {
	t.Helper()
	return strings.TrimSpace(body(t, http.MethodGet, url, "", http.StatusOK))
}

func body(t *testing.T, method, url, text string, status int) string {
	t.Helper()
	_, answer := call(t, method, url, text, status)
	return answer
}

// call sends a request, again where nobody answered in time. A command has a key, so
// that it happens once all the same.
func call(t *testing.T, method, url, text string, status int) (http.Header, string) {
	t.Helper()
	var resp *http.Response
	var answer string
	key := jetstream.NewCommandID()
	natstest.Eventually(t, method+" "+url, func() error {
		resp, answer = once(t, method, url, text, key) //nolint:bodyclose // it is read and closed
		if resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusGatewayTimeout {
			return errors.New(answer)
		}
		return nil
	})
	if resp.StatusCode != status {
		t.Fatalf("%s %s: %s %s; want %d", method, url, resp.Status, answer, status)
	}
	return resp.Header, answer
}

func once(t *testing.T, method, url, text, key string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}
