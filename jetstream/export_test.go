package jetstream

import (
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// What the black-box tests need of the inside.
var (
	EncodeCommit = encodeCommit
	Older        = older
	Transient    = transient
	SplitSubject = splitSubject
	HashKey      = hashKey
)

// NewStoreForTest is a store that was never opened: it only names things.
func NewStoreForTest(name, id string, partitions int) *Store {
	return &Store{
		name: name, id: id, prefix: name + ".event.", partitions: partitions, replicas: 1,
		keys: new(keyring), batches: make(chan struct{}, 1), horizon: new(horizon),
	}
}

// Replicated is the store with three replicas.
func (s *Store) Replicated() *Store {
	other := *s
	other.replicas = 3
	return &other
}

// StreamConfigForTest is what Open makes, with the metadata that belongs to it.
func StreamConfigForTest(c Config) natsjs.StreamConfig {
	g := genesis{Store: newStoreID(), Format: FormatVersion, Codec: c.Codec.String(), Partitions: PartitionsDefault}
	return streamConfig(c.withDefaults(), g)
}

// Impatient is the store with a short time for everything.
func (s *Store) Impatient() *Store {
	other := *s
	other.attempt, other.timeout = 50*time.Millisecond, 300*time.Millisecond
	return &other
}

// WithConn is the store on another connection, opened without the right to.
func (s *Store) WithConn(nc *nats.Conn) *Store {
	other := *s
	other.nc, other.attempt, other.timeout = nc, 100*time.Millisecond, 90*time.Second // natstest.Patience
	return &other
}

// Attempts is the store with attempts of such a length.
func (s *Store) Attempts(d time.Duration) *Store {
	other := *s
	other.attempt = d
	return &other
}

// NextID is a source's id of the millisecond, from the last one on.
func NextID(last [16]byte, ms uint64) [16]byte {
	s := idSource{last: last}
	return s.next(func() uint64 { return ms })
}

// AllHeaders lists the headers that the format gives a meaning to.
var AllHeaders = []string{
	headerCommit, headerChain, headerEvents, headerFormat, headerOrigin, headerTx, headerContentType, headerTrace,
	headerExpected,
}
