-- Cars whose insurance has expired, or will within 90 days: the longest expired first.
SELECT
    car_chassis,
    manufacturer,
    model,
    insurance_provider,
    insurance_valid_until,
    insurance_status,
    insurance_days_expired,
    current_mileage_km,
    telemetry_timestamp AS last_seen
FROM gold.car_current_state
WHERE insurance_status IN ('EXPIRED', 'EXPIRING_IN_90_DAYS')
ORDER BY insurance_valid_until, car_chassis
