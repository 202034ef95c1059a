-- Critical alerts of the last 30 days by car: the most first.
SELECT
    car_chassis,
    alert_type,
    count(*) AS alerts,
    max(telemetry_timestamp) AS latest
FROM gold.performance_alerts
WHERE alert_severity = 'CRITICAL'
    AND alert_date >= current_date - INTERVAL '30' DAY
GROUP BY car_chassis, alert_type
ORDER BY alerts DESC, car_chassis
