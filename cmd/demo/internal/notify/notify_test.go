package notify_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
)

func TestServiceHonoursKeys(t *testing.T) {
	t.Parallel()
	s := notify.NewService()
	post := func(method, key, body string) int {
		r := httptest.NewRequestWithContext(t.Context(), method, "/", strings.NewReader(body))
		r.Header.Set("Idempotency-Key", key)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code
	}
	const one = `{"transferId":"t1","state":"COMPLETED","cents":5}`
	for _, c := range []struct {
		method, key, body string
		want              int
	}{
		{"POST", "k1", one, http.StatusNoContent},
		{"POST", "k1", one, http.StatusNoContent},
		{"POST", "k2", `{"transferId":"t2"}`, http.StatusNoContent},
		{"POST", "", one, http.StatusBadRequest},
		{"POST", "k3", `{"transferId":`, http.StatusBadRequest},
		{"GET", "k4", "", http.StatusMethodNotAllowed},
	} {
		if got := post(c.method, c.key, c.body); got != c.want {
			t.Errorf("%s %q %q: %d, want %d", c.method, c.key, c.body, got, c.want)
		}
	}
	got := s.Stats()
	if got.Received != 2 || got.Duplicates != 1 || len(got.Last) != 2 || got.Last[0].TransferID != "t1" ||
		got.Last[0].State != transfer.Completed || got.Last[0].Cents != 5 {
		t.Errorf("%+v", got)
	}
}
