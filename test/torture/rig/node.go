package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// NodeKind is the kind of child that is a server.
const NodeKind = "node"

// readyTimeout bounds a server's start: it may have to recover what a kill left.
const readyTimeout = time.Minute

// nodeConfig is what the process of a server is given.
type nodeConfig struct {
	Name    string   `json:"name"`
	Client  string   `json:"client"`
	Cluster string   `json:"cluster,omitempty"`
	Routes  []string `json:"routes,omitempty"`
	Dir     string   `json:"dir"`
	Log     string   `json:"log"`
	Fsync   bool     `json:"fsync"`
}

// RunNode is the process of a server. It ends when its parent says so or is gone.
func RunNode(config string) error {
	var c nodeConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	o := &server.Options{
		ServerName: c.Name, JetStream: true, StoreDir: c.Dir, SyncAlways: c.Fsync, NoSigs: true, LogFile: c.Log,
		Cluster: server.ClusterOpts{
			// Servers and clients must not learn of ways around the proxies.
			NoAdvertise: true, Advertise: "127.0.0.1:1",
		},
	}
	var err error
	if o.Host, o.Port, err = hostPort(c.Client); err != nil {
		return err
	}
	if c.Cluster == "" {
		o.Cluster = server.ClusterOpts{}
	} else {
		o.Cluster.Name = "torture"
		if o.Cluster.Host, o.Cluster.Port, err = hostPort(c.Cluster); err != nil {
			return err
		}
		for _, r := range c.Routes {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: r})
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	ctx, cancel := Orphaned()
	defer cancel()
	s.Start()
	if !s.ReadyForConnections(readyTimeout) {
		return errors.New("the server is not ready")
	}
	if _, err := fmt.Fprintln(os.Stdout, "ready", s.ClientURL()); err != nil {
		return err
	}
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

func hostPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}

// Ports below those that the system gives to outgoing connections, so that nobody
// takes a server's while it is down.
const firstPort, lastPort = 4000, 9999

// given counts the ports that were looked at: between the search for one and its
// use, nobody else in this process may get it.
var given atomic.Int64

// freeAddresses finds addresses on which nobody listens.
func freeAddresses(ctx context.Context, n int) ([]string, error) {
	var found []string
	for range lastPort - firstPort {
		port := firstPort + (os.Getpid()*61+int(given.Add(1)))%(lastPort-firstPort)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		if found = append(found, addr); len(found) == n {
			return found, nil
		}
	}
	return nil, errors.New("found no free ports")
}
