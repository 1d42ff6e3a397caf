package notify

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
)

// seenMax bounds the keys that the service remembers.
const seenMax = 100_000

// Service is a notification service as somebody else might run one: it honours
// idempotency keys.
type Service struct {
	mu         sync.Mutex
	seen       map[string]bool
	order      []string
	received   int
	duplicates int
	last       []Notification
	mood       Mood
	refused    int
}

// Mood is how the service behaves.
type Mood string

// The moods.
const (
	Works  Mood = "works"
	Fails  Mood = "fails"  // with 503, doing nothing
	Loses  Mood = "loses"  // does what it is told and loses the answer
	Refuse Mood = "refuse" // for good, with 422
)

// Moods are all of them.
func Moods() []Mood { return []Mood{Works, Fails, Loses, Refuse} }

// SetMood changes how the service behaves from now on.
func (s *Service) SetMood(m Mood) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = m
}

// Mood tells how it behaves, and how many requests it has broken.
func (s *Service) Mood() (mood Mood, broken int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mood, s.refused
}

// Stats are what the service has received.
type Stats struct {
	// Received counts the notifications, Duplicates the repeats of one that it had.
	Received   int `json:"received"`
	Duplicates int `json:"duplicates"`
	// Last are the newest, newest last.
	Last []Notification `json:"last"`
}

// NewService makes a service that has received nothing.
func NewService() *Service { return &Service{seen: map[string]bool{}, mood: Works} }

// ServeHTTP takes a notification.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST a notification", http.StatusMethodNotAllowed)
		return
	}
	key := r.Header.Get("Idempotency-Key")
	var n Notification
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&n); err != nil || key == "" {
		http.Error(w, "want a JSON notification and an Idempotency-Key", http.StatusBadRequest)
		return
	}
	switch s.suffer() {
	case Fails:
		http.Error(w, "somebody broke this service", http.StatusServiceUnavailable)
		return
	case Refuse:
		http.Error(w, "this service refuses everything", http.StatusUnprocessableEntity)
		return
	case Loses:
		s.take(key, n)
		http.Error(w, "the answer got lost", http.StatusBadGateway)
		return
	case Works:
	}
	s.take(key, n)
	w.WriteHeader(http.StatusNoContent)
}

// suffer counts a request that is going to be broken.
func (s *Service) suffer() Mood {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mood != Works {
		s.refused++
	}
	return s.mood
}

func (s *Service) take(key string, n Notification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[key] {
		s.duplicates++
		return
	}
	s.received++
	s.seen[key] = true
	s.order = append(s.order, key)
	if len(s.order) > seenMax {
		delete(s.seen, s.order[0])
		s.order = s.order[1:]
	}
	s.last = append(s.last, n)
	if len(s.last) > 20 {
		s.last = s.last[1:]
	}
}

// Stats returns what the service has received.
func (s *Service) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Received: s.received, Duplicates: s.duplicates, Last: append([]Notification{}, s.last...)}
}
