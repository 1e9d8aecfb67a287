// One of each type by go-metrics, for scripts/e2e-clients.
package main

import (
	"net"
	"os"
	"time"

	"github.com/hashicorp/go-metrics"
)

func main() {
	address := net.JoinHostPort(os.Getenv("STATSD_UDP_HOST"), os.Getenv("STATSD_UDP_PORT"))
	sink, err := metrics.NewStatsdSink(address)
	if err != nil {
		panic(err)
	}
	config := metrics.DefaultConfig("shop")
	config.EnableHostname = false
	config.EnableRuntimeMetrics = false
	m, err := metrics.New(config, sink)
	if err != nil {
		panic(err)
	}
	for i := 0; i < 5; i++ {
		m.IncrCounter([]string{"cart", "items"}, 1)
	}
	m.SetGauge([]string{"pool_size"}, 8)
	m.AddSample([]string{"checkout", "time"}, 250)
	// The sink sends within a tenth of a second.
	time.Sleep(time.Second)
	m.Shutdown()
}
