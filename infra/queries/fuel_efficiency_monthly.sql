-- Litres per 100 km by model and month, of the kilometres whose fuel is known.
SELECT
    year_month,
    manufacturer,
    model,
    count(*) AS cars,
    sum(measured_km) AS measured_km,
    100 * sum(total_fuel_liters) / nullif(sum(measured_km), 0) AS liters_per_100_km
FROM gold.fuel_efficiency_monthly
GROUP BY year_month, manufacturer, model
ORDER BY year_month DESC, liters_per_100_km DESC
