// One of each type by Micrometer's StatsD registry, for scripts/e2e-clients.

import io.micrometer.core.instrument.Clock;
import io.micrometer.core.instrument.Tags;
import io.micrometer.statsd.StatsdConfig;
import io.micrometer.statsd.StatsdFlavor;
import io.micrometer.statsd.StatsdMeterRegistry;
import java.time.Duration;

public class Each {
    public static void main(String[] args) throws Exception {
        StatsdConfig config = new StatsdConfig() {
            @Override
            public String get(String key) {
                return null;
            }

            @Override
            public StatsdFlavor flavor() {
                return StatsdFlavor.valueOf(args[0].toUpperCase());
            }

            @Override
            public String host() {
                return System.getenv("STATSD_UDP_HOST");
            }

            @Override
            public int port() {
                return Integer.parseInt(System.getenv("STATSD_UDP_PORT"));
            }

            @Override
            public Duration pollingFrequency() {
                return Duration.ofMillis(500);
            }
        };
        StatsdMeterRegistry registry = new StatsdMeterRegistry(config, Clock.SYSTEM);
        Tags tags = Tags.of("region", "eu");
        Thread.sleep(1000);
        registry.counter("shop.orders", tags).increment(5);
        registry.timer("shop.checkout", tags).record(Duration.ofMillis(250));
        registry.summary("shop.body", tags).record(40);
        registry.gauge("shop.pool.size", tags, 8);
        Thread.sleep(1500);
        registry.close();
        System.exit(0);
    }
}
