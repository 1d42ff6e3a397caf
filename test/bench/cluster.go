package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

const clusterSize = 3

// startCluster starts three servers, each in a process of its own, and waits until
// they can keep a stream.
func (e *env) startCluster(ctx context.Context) error {
	addresses, err := freePorts(ctx, 2*clusterSize)
	if err != nil {
		return err
	}
	routes := strings.Join(addresses[clusterSize:], ",")
	var urls []string
	for i := range clusterSize {
		dir := filepath.Join(e.home, "node-"+strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		p, err := start(ctx, "node", dir, strconv.Itoa(i), addresses[i], addresses[clusterSize+i], routes,
			fsyncArg(e.row.fsync))
		if err != nil {
			return err
		}
		e.servers = append(e.servers, p)
		urls = append(urls, "nats://"+addresses[i])
	}
	for _, p := range e.servers {
		if _, err := p.line(); err != nil {
			return err
		}
	}
	e.url = strings.Join(urls, ",")
	return awaitCluster(ctx, e.url)
}

// awaitCluster makes a stream of three replicas, again until that works.
func awaitCluster(ctx context.Context, url string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		return err
	}
	for wait := time.NewTicker(100 * time.Millisecond); ; {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		_, err = js.CreateOrUpdateStream(attempt, natsjs.StreamConfig{Name: "ready", Replicas: clusterSize})
		cancel()
		if err == nil {
			return js.DeleteStream(ctx, "ready")
		}
		select {
		case <-wait.C:
		case <-ctx.Done():
			return fmt.Errorf("the cluster is not ready: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// freePorts finds addresses on which nobody listens.
func freePorts(ctx context.Context, n int) (addresses []string, err error) {
	for range n {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

const (
	fsyncLazy   = "lazy"
	fsyncAlways = "always"
)

func fsyncArg(always bool) string {
	if always {
		return fsyncAlways
	}
	return fsyncLazy
}

// serveNode runs one server of a cluster until the parent is done with it.
func serveNode(dir, number, client, cluster, routes, fsync string) error {
	done := orphaned()
	o := &server.Options{
		ServerName: "bench-" + number, JetStream: true, StoreDir: dir, SyncAlways: fsync == fsyncAlways,
		NoSigs: true, NoLog: true, Cluster: server.ClusterOpts{Name: "bench"},
	}
	var err error
	if o.Host, o.Port, err = hostPort(client); err != nil {
		return err
	}
	if o.Cluster.Host, o.Cluster.Port, err = hostPort(cluster); err != nil {
		return err
	}
	for r := range strings.SplitSeq(routes, ",") {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: r})
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return err
	}
	srv.Start()
	if !srv.ReadyForConnections(time.Minute) {
		return errors.New("the server is not ready")
	}
	fmt.Println(srv.ClientURL())
	<-done
	srv.Shutdown()
	srv.WaitForShutdown()
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
